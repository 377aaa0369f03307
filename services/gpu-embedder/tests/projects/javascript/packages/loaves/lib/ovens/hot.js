export default function hot(loaf) {
  return { ...loaf, baked: true };
}
