#pragma once

#include <array>

namespace quarry {
template <std::size_t N>
class Matrix {
public:
    double at(std::size_t row, std::size_t column) const;
    std::size_t size() const { return N; }

private:
    std::array<double, N * N> cells_{};
};
}

#include "Matrix.tpp"
