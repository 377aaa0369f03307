namespace quarry {
template <std::size_t N>
double Matrix<N>::at(std::size_t row, std::size_t column) const {
    return cells_[row * N + column];
}
}
