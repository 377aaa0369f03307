#include "server.h"

#include <sys/socket.h>
#include "settings.h"
#include "util.h"
#include "../device/ring.h"
#include "tiny/json.h"

int server_run(const struct settings *settings, size_t size) {
    return clamp_port(settings->port) + (int)size;
}
