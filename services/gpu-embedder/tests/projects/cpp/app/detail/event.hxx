#ifndef EVENT_HXX
#define EVENT_HXX
#include <functional>
#include "../window.h"

namespace app {
using Handler = std::function<void(Window &)>;
bool poll_event();
}
#endif
