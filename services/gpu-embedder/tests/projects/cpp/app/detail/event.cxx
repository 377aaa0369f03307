#include "event.hxx"

namespace app {
bool poll_event() { return false; }
}
