// Change listener: hears on a connection of its own (LISTEN) that the directory has changed, in whatever
// process.
//
// Who uses it also polls: while there is no connection, nothing is heard.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>

namespace kavach::sink {

class ChangeListener {
 public:
  // Calls `changed` on a thread of its own: for changes, and for every new connection, before which some may
  // have been missed.
  ChangeListener(std::string url, std::function<void()> changed);
  ~ChangeListener();
  ChangeListener(const ChangeListener&) = delete;
  ChangeListener& operator=(const ChangeListener&) = delete;

 private:
  void run();
  void sleep(int milliseconds) const;

  const std::string url_;
  const std::function<void()> changed_;
  const int wake_;  // an eventfd
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace kavach::sink
