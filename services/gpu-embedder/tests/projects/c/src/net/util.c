#include "util.h"
#include "common/util.h"

int clamp_port(int port) {
    return min_int(port, 65535);
}
