#pragma once
int min_int(int one, int other);
