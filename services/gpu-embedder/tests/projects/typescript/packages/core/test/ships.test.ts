import { describe, it } from "vitest";
import { launch } from "@harbour/core";
import { launch as direct } from "../src/ships";
import { log } from "#internal/log.js";
import { secret } from "@harbour/core/units/secret";

describe("launch", () => {
  it("names the ship", () => log(launch("a").name + direct("b").name + secret));
});
