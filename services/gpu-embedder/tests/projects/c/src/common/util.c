#include "util.h"

int min_int(int one, int other) {
    return one < other ? one : other;
}
