exports.bake = function bake(loaf) {
  return loaf;
};
