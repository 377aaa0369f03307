import { start } from "../src/screens/index.js";
import { port } from "../../api/config/production";

start(port);
