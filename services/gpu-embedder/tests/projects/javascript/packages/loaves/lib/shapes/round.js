import { flour } from "@bakery/loaves/flour";

export const round = { flour };
