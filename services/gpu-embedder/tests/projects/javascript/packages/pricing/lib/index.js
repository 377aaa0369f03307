var tax = require("./tax");
var rules = require("./rules");
var data = require("./data");

exports.price = function price(grams) {
  return tax.add(rules.apply(grams * data.perGram));
};
