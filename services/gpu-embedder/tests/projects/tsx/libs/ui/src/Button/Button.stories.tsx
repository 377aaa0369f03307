import type { Meta } from "@storybook/react";
import { Button, type ButtonProps } from ".";

export default { component: Button } satisfies Meta<ButtonProps>;
export const Plain = () => <Button label="Dig" onPress={() => {}} />;
