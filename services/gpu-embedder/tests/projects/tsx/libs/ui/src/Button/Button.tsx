import { useTheme } from "@garden/theme";
import { Leaf } from "@garden/icons/Leaf";
import "./button.css";

export interface ButtonProps {
  label: string;
  onPress(): void;
}

export function Button({ label, onPress }: ButtonProps) {
  const theme = useTheme();
  return (
    <button onClick={onPress}>
      <Leaf colour={theme.leaf} /> {label}
    </button>
  );
}
