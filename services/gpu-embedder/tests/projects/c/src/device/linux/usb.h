#pragma once
struct probe;
int usb_find(const char *name, struct probe **probe);
