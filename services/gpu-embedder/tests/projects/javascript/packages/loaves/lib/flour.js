export const flour = "rye";
