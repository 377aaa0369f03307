import { createContext, useContext, type ReactNode } from "react";
import colours from "./colours.json";
import type { Theme } from "./types";

const Context = createContext<Theme>(colours);

export function ThemeProvider({ children }: { children: ReactNode }) {
  return <Context.Provider value={colours}>{children}</Context.Provider>;
}

export const useTheme = (): Theme => useContext(Context);
