import { start } from "@/screens";
import * as ships from "@harbour/core";

start(ships);
