export const flour = "wheat";
