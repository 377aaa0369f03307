import type { Chart } from "main";
import { Point } from "./point.js";

export class Line {
  chart?: Chart;
  constructor(public colour: string, public start: Point) {}
}
