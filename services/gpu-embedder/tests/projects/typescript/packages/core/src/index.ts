// Specifiers name the output, as native modules need it.
export * from "./ships.js";
export * as tides from "./tides/index.js";
export type { Metres } from "./units/length.js";
export { now } from "#clock";
