#include <cmath>

namespace quarry::detail {
inline double normal(double angle) { return std::fmod(angle, 6.283185307); }
}
