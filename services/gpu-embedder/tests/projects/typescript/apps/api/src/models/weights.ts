export type Tons = number;
