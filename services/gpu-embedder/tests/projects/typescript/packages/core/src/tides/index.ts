import table = require("./table.json");
import { predict } from "./predict";

export function next(hours: number): number {
  return predict(table, hours);
}
