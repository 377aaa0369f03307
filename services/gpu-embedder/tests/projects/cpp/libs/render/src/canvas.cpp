#include "quarry/render/canvas.hpp"

#include <Quarry/src/Matrix.h>

#include "detail/brush.hpp"
#include "backends/software.hpp"
#include HARDWARE_HEADER

namespace quarry {
Canvas::Canvas(int width, int height) : cells_(width * height) {}

void Canvas::draw(double turned) {
    Matrix<2> matrix;
    cells_.push_back(Brush{}.colour(turned + matrix.at(0, 0)));
    flush_software();
}

int Canvas::size() const { return static_cast<int>(cells_.size()); }
}
