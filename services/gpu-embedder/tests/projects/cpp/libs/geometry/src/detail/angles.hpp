#pragma once

#ifdef QUARRY_FAST
#include "angles_fast.inl"
#else
#include "angles_exact.inl"
#endif
