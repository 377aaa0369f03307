#pragma once

namespace quarry {
struct Colour {
    unsigned char red, green, blue;
    static Colour parse(const char *text);
};
}
