import { lazy } from "react";
import { createRoot } from "react-dom/client";
import { ThemeProvider } from "@garden/theme";
import "@garden/ui/styles.css";
import { App } from "~/App";
import logo from "./logo.svg?url";

const Beds = lazy(() => import("~/pages/Beds"));
createRoot(document.body).render(
  <ThemeProvider>
    <App logo={logo} beds={Beds} />
  </ThemeProvider>,
);
