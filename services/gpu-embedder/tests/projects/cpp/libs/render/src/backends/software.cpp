#include "software.hpp"
#include "backends/common.hpp"

void flush_software() { flush_common(); }
