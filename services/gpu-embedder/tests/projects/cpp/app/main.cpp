#include <iostream>
#include <memory>

#include <Quarry/Geometry>
#include <quarry/render/canvas.hpp>
#include "window.h"
#include "generated/version.hpp"

int main() {
    auto window = std::make_unique<app::Window>(640, 480);
    quarry::Matrix<3> turn = quarry::rotation(0.5);
    window->show(turn.at(0, 0));
    std::cout << QUARRY_VERSION << '\n';
}
