import type { ReactNode } from "react";

export const Card = (props: { title: string; children?: ReactNode }) => <section>{props.children}</section>;
