#include "window.h"
#include "quarry/render/canvas.hpp"
#include "detail/event.hxx"

namespace app {
Window::Window(int width, int height) : canvas_(new quarry::Canvas(width, height)) {}

void Window::show(double turned) {
    canvas_->draw(turned);
    poll_event();
}

int Window::size() const { return canvas_->size(); }
}
