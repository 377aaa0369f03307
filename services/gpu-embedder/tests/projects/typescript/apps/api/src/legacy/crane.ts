export class Crane {
  tons: import("../models/weights").Tons = 1;
}
