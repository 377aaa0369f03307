#pragma once
/* For the one system that has no <time.h>; nobody includes it by the angle form. */
long time_now(void);
