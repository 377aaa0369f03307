#pragma once

#include <stdint.h>

typedef struct {
    uint32_t at;
    double value;
} reading;
