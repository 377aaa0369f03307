export const createContext = () => null;
