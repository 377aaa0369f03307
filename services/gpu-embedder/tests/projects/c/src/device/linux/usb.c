#include "usb.h"

#include <linux/usb/ch9.h>

int usb_find(const char *name, struct probe **probe) {
    return name != 0 && probe != 0;
}
