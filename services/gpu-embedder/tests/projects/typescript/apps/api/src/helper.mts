/// <reference path="./globals.d.ts" />
export default function helper<T>(value: T): T {
  return value;
}
