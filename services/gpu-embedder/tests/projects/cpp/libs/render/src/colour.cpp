#include <quarry/render/colour.hpp>
#include <cstdlib>

namespace quarry {
Colour Colour::parse(const char *text) {
    return {static_cast<unsigned char>(std::atoi(text)), 0, 0};
}
}
