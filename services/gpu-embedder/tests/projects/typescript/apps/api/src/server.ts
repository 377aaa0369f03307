import express from "express";
import { port } from "@/config";
import { berths } from "@/routes/berths";
import { Chart } from "charts";
import { missing } from "@/routes/absent";

const app = express();
app.use(berths, new Chart(), missing);
app.listen(port);
export async function reload(): Promise<void> {
  const { berths } = await import("./routes/berths");
  app.use(berths);
}
