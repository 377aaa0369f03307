import { price } from "pricing";

export default function total(items) {
  return items.map(price).reduce((one, other) => one + other, 0);
}
