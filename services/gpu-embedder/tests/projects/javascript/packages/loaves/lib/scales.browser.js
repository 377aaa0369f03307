export const weigh = () => 0;
