export { Field } from "./Field";
