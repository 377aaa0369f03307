import { render } from "@testing-library/react";
import { Button } from "../Button";
import { Card } from "../..";

test("a button shows its label", () => {
  render(<Card title="x"><Button label="Dig" onPress={() => {}} /></Card>);
});
