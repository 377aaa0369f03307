#include "probe/error.h"

static const char *const TEXTS[] = {
#define ERROR(name, text) text,
#include <probe/errors.def>
};

const char *probe_error_text(probe_error error) {
    return TEXTS[error];
}
