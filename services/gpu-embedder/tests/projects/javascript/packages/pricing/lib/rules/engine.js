const path = require("path");

function load(name) {
  return require(path.join(__dirname, name));
}

exports.apply = (sum) => (sum > 100 ? sum * 0.9 : load("nothing"));
