import { Berth } from "@models/berth";
import { Crane } from "@models/crane";
import type { Ship } from "@harbour/core";
import helper from "../helper.mjs";

export function berths(ship: Ship): Berth {
  return helper(new Berth(ship, new Crane()));
}
