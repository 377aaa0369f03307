export const knead = () => {};
