export const Spade = () => <svg />;
