namespace quarry::detail {
inline double normal(double angle) { return angle; }
}
