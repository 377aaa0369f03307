#ifndef PROBE_ERROR_H
#define PROBE_ERROR_H

typedef enum {
#define ERROR(name, text) PROBE_##name,
#include "errors.def"
#undef ERROR
} probe_error;

const char *probe_error_text(probe_error error);

#endif
