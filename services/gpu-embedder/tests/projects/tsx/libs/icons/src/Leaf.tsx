export const Leaf = ({ colour }: { colour: string }) => <svg color={colour} />;
