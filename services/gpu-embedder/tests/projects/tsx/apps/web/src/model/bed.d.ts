export interface Bed {
  name: string;
}
