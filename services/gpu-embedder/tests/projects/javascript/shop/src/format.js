const cache = new Map();

export function format(sum) {
  if (!cache.has(sum)) cache.set(sum, new Intl.NumberFormat("en").format(sum));
  return cache.get(sum);
}
