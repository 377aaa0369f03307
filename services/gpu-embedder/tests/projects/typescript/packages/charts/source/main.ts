import { launch, tides } from "@harbour/core";
import { toKnots } from "@harbour/core/units/speed";
import { next } from "@harbour/core/tides";
import { Line } from "shapes/line";
import { palette } from "./palette";
import { gone } from "./gone";

export class Chart {
  lines: Line[] = [];
  draw(): void {
    launch(String(next(toKnots(1)) + tides.next(1)));
    this.lines.push(new Line(palette.sea, gone));
  }
}
