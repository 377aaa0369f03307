import { useBeds } from "~/hooks/useBeds";
import { FormField } from "@garden/ui";
import { Field } from "@garden/ui/forms";
import { Hidden } from "@garden/ui/src/Card";
import { Rows } from "./Rows.jsx";

export default function Beds() {
  const { beds } = useBeds();
  return <Rows>{beds.map((bed) => <FormField name={bed.name} />)}<Field name="all" /><Hidden /></Rows>;
}
