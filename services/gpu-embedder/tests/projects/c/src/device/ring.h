#pragma once

#include <probe/types.h>
#include <stddef.h>

struct ring {
    reading items[64];
    size_t head, tail;
};

size_t ring_take(struct ring *ring, reading *into, size_t count);
