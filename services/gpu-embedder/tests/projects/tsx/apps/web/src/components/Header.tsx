import { Spade } from "@garden/icons/Spade";
import { Button } from "./Button";

const Title = ({ logo }: { logo: string }) => <h1><Spade /><Button src={logo} /></h1>;
export const Header = { Title };
