// A file comes before a folder of the same name.
exports.add = () => 0;
