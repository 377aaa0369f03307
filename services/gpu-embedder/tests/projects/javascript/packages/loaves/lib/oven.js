import hot from "#ovens/hot";

export function bake(loaf) {
  return hot(loaf);
}
export default bake;
