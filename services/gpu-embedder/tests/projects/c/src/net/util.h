#pragma once
/* Has the name of a header in another folder. */
int clamp_port(int port);
