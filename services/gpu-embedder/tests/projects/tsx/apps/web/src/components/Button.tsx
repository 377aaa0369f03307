// Has the name of the button of the library, and is another.
export const Button = ({ src }: { src: string }) => <img src={src} />;
