import type { ComponentType } from "react";
import { Button, Card } from "@garden/ui";
import { useBeds } from "hooks/useBeds";
import { Header } from "./components/Header.tsx";

export function App({ logo, beds: Beds }: { logo: string; beds: ComponentType }) {
  const { add } = useBeds();
  return (
    <Card title="Garden">
      <Header.Title logo={logo} />
      <Button label="Add" onPress={add} />
      <Beds />
    </Card>
  );
}
