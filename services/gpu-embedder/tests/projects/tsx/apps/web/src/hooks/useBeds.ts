import { useState } from "react";
import type * as model from "../model/bed";

export function useBeds() {
  const [beds, setBeds] = useState<model.Bed[]>([]);
  return { beds, add: () => setBeds([...beds, { name: "new" }]) };
}
