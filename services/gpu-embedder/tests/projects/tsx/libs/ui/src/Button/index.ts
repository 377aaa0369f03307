export * from "./Button.js";
