#pragma once

#include <stddef.h>

struct settings;

int server_run(const struct settings *settings, size_t size);
