import { metresInMile } from "./length.js";

export type Knots = number;
export function toKnots(metresPerSecond: number): Knots {
  return (metresPerSecond * 3600) / metresInMile;
}
