import { defineConfig } from "vite";
import manifest from "./package.json";

export default defineConfig({ define: { NAME: manifest.name } });
