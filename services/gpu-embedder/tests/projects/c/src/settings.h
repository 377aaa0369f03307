#pragma once

struct settings {
    int port;
    const char *device;
};

struct settings settings_read(int count, char **arguments);
