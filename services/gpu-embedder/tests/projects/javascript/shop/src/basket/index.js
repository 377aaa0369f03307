export { Basket } from "./Basket.jsx";
export { default as total } from "./total";
