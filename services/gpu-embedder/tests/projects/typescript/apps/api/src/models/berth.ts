import type { Crane } from "../legacy/crane";

export class Berth {
  constructor(public ship: unknown, public crane: Crane) {}
  get(): unknown {
    return this.ship;
  }
}
