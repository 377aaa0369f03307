#pragma once

#include <stdio.h>

#define CHECK(what) \
    do { \
        if (!(what)) puts(#what); \
    } while (0)
