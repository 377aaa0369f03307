const oven = require("./oven");
const { inspect } = require("util");

module.exports = { bake: oven.bake, inspect };
