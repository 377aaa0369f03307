import React, { lazy } from "react";
import { Basket } from "./basket";
import "./style.css";
import { format } from "@/format";

const Help = lazy(() => import("./help"));

export default function Shop() {
  return <Basket title={format(1)}><Help /></Basket>;
}
