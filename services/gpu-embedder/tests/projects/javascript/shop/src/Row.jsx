export const Row = ({ title, children }) => <div title={title}>{children}</div>;
