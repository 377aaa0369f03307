export const palette = { sea: "#00f", land: "#0a0" };
