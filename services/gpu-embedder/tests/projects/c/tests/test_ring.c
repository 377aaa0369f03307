#include <assert.h>

#include "../src/device/ring.c"
#include "check.h"

int main(void) {
    struct ring ring = {0};
    CHECK(ring_take(&ring, 0, 0) == 0);
    return 0;
}
