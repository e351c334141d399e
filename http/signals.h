// Signals of a process that runs until it is told to stop. They are blocked in every thread and waited for in
// one.
#pragma once

#include <signal.h>

namespace kavach::http {

// From here on SIGTERM and SIGINT end the process, whatever it waits for. Nothing acknowledged depends on an
// orderly stop.
void end_at_once_on_signal();

}  // namespace kavach::http
