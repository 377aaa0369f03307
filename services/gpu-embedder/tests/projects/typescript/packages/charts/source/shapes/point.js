// Written by hand beside its types, for those who do not compile.
exports.Point = class Point {};
