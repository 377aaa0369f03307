export { ThemeProvider, useTheme } from "./ThemeProvider";
export { default as colours } from "./colours.json";
export * from "./types";
