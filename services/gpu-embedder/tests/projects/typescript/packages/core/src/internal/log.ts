import { format } from "node:util";
import { now } from "../clock";

export function log(text: string): void {
  process.stderr.write(format("%d %s", now(), text));
}
