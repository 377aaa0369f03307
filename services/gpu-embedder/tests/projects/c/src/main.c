#include <stdio.h>
#include <string.h>

#include <probe/probe.h>

#include "common/log.h"
#include "net/server.h"
#include "settings.h"
#include "version.h"

int main(int count, char **arguments) {
    struct settings settings = settings_read(count, arguments);
    log_line(VERSION);
    return server_run(&settings, strlen(arguments[0]));
}
