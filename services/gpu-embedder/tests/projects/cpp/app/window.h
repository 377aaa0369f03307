#pragma once

namespace quarry {
class Canvas;
}

namespace app {
class Window {
public:
    Window(int width, int height);
    void show(double turned);
    int size() const;

private:
    quarry::Canvas *canvas_;
};
}
