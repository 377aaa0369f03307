import { Button } from "..";

export class Field extends Base<{ name: string }> {
  render() {
    return <Button label={this.props.name} onPress={() => this.get()} />;
  }
  get() {
    return this.props.name;
  }
}
class Base<T> {
  constructor(public props: T) {}
}
