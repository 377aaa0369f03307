#include "log.h"

#include <stdio.h>
#include <time.h>

void log_line(const char *text) {
    fprintf(stderr, "%ld %s\n", (long)time(NULL), text);
}
