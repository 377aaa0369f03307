#pragma once
/* Has the name of a header of the system: only <probe/string.h> means this one. */
char *probe_strdup(const char *text);
