#include <probe/probe.h>

#include <errno.h>
#ifdef __linux__
#include "linux/usb.h"
#elif defined(_WIN32)
#include "windows/usb.h"
#endif
#include "ring.h"
#include "../common/log.h"
#include "common/util.h"

struct probe {
    struct ring ring;
};

probe_error probe_open(const char *name, struct probe **probe) {
    log_line(name);
    return usb_find(name, probe) ? PROBE_OK : PROBE_AWAY;
}

size_t probe_read(struct probe *probe, reading *into, size_t count) {
    return ring_take(&probe->ring, into, min_int(count, 16));
}
