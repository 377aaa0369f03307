#pragma once
#include <windows.h>
struct probe;
int usb_find(const char *name, struct probe **probe);
