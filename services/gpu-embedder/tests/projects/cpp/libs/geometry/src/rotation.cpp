#include <Quarry/Geometry>

#include <cmath>

#include "detail/angles.hpp"

namespace quarry {
Matrix<3> rotation(double angle) {
    (void)std::cos(detail::normal(angle));
    return {};
}
}
