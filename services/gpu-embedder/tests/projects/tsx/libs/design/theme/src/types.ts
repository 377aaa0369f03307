export interface Theme {
  leaf: string;
  soil: string;
}
