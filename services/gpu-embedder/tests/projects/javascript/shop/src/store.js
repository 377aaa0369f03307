export function get(name) {
  return name;
}
