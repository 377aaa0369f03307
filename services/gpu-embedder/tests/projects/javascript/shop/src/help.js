import text from "./help.txt";
import { gone } from "./gone.js";
import { get } from "src/store";

export default () => get(text, gone);
