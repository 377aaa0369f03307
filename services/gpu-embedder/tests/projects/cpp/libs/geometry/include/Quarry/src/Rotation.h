#pragma once

#include "Matrix.h"

namespace quarry {
Matrix<3> rotation(double angle);
}
