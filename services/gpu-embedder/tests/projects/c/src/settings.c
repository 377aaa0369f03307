#include "settings.h"

#include <getopt.h>
#include <stdlib.h>

#include "probe/string.h"

struct settings settings_read(int count, char **arguments) {
    struct settings made = {.port = atoi(arguments[1]), .device = probe_strdup(arguments[2])};
    return made;
}
