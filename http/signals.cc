#include "http/signals.h"

#include <cstdlib>
#include <initializer_list>

namespace kavach::http {

void end_at_once_on_signal() {
  sigset_t ending;
  sigemptyset(&ending);
  for (const int signal : {SIGTERM, SIGINT}) {
    ::signal(signal, [](int) { std::_Exit(EXIT_FAILURE); });
    sigaddset(&ending, signal);
  }
  ::pthread_sigmask(SIG_UNBLOCK, &ending, nullptr);
}

}  // namespace kavach::http
