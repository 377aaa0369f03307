#ifndef PROBE_PROBE_H
#define PROBE_PROBE_H

#include <stddef.h>
#include "error.h"
#include <probe/types.h>

struct probe;

probe_error probe_open(const char *name, struct probe **probe);
size_t probe_read(struct probe *probe, reading *into, size_t count);

#endif
