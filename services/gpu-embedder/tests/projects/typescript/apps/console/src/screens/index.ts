import { render } from "./render";

export function start(value: unknown): void {
  render(value);
}
