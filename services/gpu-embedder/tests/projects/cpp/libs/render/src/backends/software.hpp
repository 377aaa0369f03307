#pragma once
void flush_software();
