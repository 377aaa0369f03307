export interface Native {
  predict(table: unknown, hours: number): number;
}
