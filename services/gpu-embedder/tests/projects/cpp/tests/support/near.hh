#ifndef NEAR_HH
#define NEAR_HH
#include "gtest/gtest.h"
#define EXPECT_NEAR_ENOUGH(one, other) EXPECT_NEAR(one, other, 1e-9)
#endif
