pub fn rows<T>(_: T) {}
