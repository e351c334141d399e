// Health: what the process knows of its own state, for probes and the status page.
#pragma once

#include <atomic>
#include <functional>

namespace kavach::http {

// Any thread.
struct Health {
  std::atomic<bool> ready{false};  // accepting, and not draining
  std::atomic<bool> draining{false};
  std::function<bool()> database_ok;  // set before the start
  std::function<bool()> journal_ok;
};

}  // namespace kavach::http
