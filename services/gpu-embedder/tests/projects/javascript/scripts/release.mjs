import { root } from "#root";
import { readFile } from "fs/promises";
import loaves from "@bakery/loaves";
import manifest from "../package.json" with { type: "json" };

console.log(root, await readFile("x"), loaves, manifest);
