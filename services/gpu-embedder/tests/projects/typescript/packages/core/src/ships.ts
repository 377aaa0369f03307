import { now } from "#clock";
import { log } from "#internal/log.js";
import type { Metres } from "./units/length.js";
import { toKnots, type Knots } from "./units/speed.js";

export interface Ship {
  name: string;
  length: Metres;
  speed: Knots;
}

export function launch(name: string): Ship {
  log(`launched at ${now()}`);
  return { name, length: 1, speed: toKnots(1) };
}
