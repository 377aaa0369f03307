export type Metres = number;
export const metresInMile = 1852;
