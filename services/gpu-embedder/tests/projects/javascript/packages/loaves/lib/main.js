export { bake, default as heat } from "./oven.js";
export * from "./shapes/round.js";
import { weigh } from "#scales";
import "./register.js";

export default weigh(1);
