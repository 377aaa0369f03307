import total from "./total";
import { Row } from "../Row";

export const Basket = ({ title, children }) => <Row title={title + total([])}>{children}</Row>;
