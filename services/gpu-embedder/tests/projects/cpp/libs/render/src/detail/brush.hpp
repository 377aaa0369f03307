#pragma once

#include <quarry/render/colour.hpp>

namespace quarry {
struct Brush {
    Colour colour(double strength) const { return Colour::parse(strength > 0 ? "1" : "0"); }
};
}
