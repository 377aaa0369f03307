import type { Native } from "./native";

export function predict(table: unknown, hours: number): number {
  const native: Native = require("./native");
  return native.predict(table, hours);
}
