#pragma once
int json_parse(const char *text);
