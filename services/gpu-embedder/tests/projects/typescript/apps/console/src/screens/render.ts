export function render(value: unknown): void {
  console.log(value);
}
