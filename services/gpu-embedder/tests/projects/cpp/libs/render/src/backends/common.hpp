#pragma once
inline void flush_common() {}
