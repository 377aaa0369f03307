exports.add = function (sum) {
  return sum * 1.2;
};
