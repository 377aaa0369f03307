#include "time.h"

long time_now(void) {
    return 0;
}
