#include "ring.h"

size_t ring_take(struct ring *ring, reading *into, size_t count) {
    return ring->head - ring->tail + count * sizeof *into;
}
