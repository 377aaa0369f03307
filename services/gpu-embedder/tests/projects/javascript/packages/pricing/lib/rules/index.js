exports.apply = (sum) => sum;
