#pragma once

#include "quarry/render/colour.hpp"
#include <vector>

namespace quarry {
class Canvas {
public:
    Canvas(int width, int height);
    void draw(double turned);
    int size() const;

private:
    std::vector<Colour> cells_;
};
}
