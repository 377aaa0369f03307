#include <gtest/gtest.h>

#include "Quarry/Core"
#include "support/near.hh"

TEST(Matrix, IsZero) {
    EXPECT_NEAR_ENOUGH(quarry::Matrix<2>().at(0, 1), 0);
}
