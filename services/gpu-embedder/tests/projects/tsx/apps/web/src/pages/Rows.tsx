import { Absent } from "./Absent";

export const Rows = (props: { children: unknown }) => <div>{props.children ?? <Absent />}</div>;
