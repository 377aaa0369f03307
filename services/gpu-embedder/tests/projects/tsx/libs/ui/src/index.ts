export { Button } from "./Button";
export type { ButtonProps } from "./Button/Button";
export * from "./Card";
export { Field as FormField } from "./forms";
