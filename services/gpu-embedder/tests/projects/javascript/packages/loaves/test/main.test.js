import test from "node:test";
import loaves, { bake } from "@bakery/loaves";
import { round } from "@bakery/loaves/shapes/round";
import { knead } from "@bakery/loaves/shapes/internal/knead";

test("bakes", () => bake(round, loaves, knead));
