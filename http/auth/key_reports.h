// KeyReports: writes down what the shards' key rings noted: uses and failures of keys, agents turned away
// (contract/agentkavach.md 1.1).
//
// One thread with a store connection of its own, once a second. Not the directory's: a commit waits for the
// disk, and who changed a budget must not wait for that until it is in force.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "sink/store/store.h"

namespace kavach::http {

class KeyReports {
 public:
  explicit KeyReports(std::unique_ptr<sink::Store> store) : store_(std::move(store)) {}
  ~KeyReports();  // stop()

  void start();
  // Writes what is there once more.
  void stop();
  // Any thread, never blocks for long. What the store does not take is kept and written later, but for what
  // is beyond 100,000 of a kind: counts of use are lost then, never events.
  void add(std::vector<sink::KeyUse> uses, std::vector<sink::RejectedAgent> rejected);

 private:
  void run();
  void write();

  const std::unique_ptr<sink::Store> store_;  // the thread's
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;                      // guarded by mutex_
  std::vector<sink::KeyUse> uses_;             // guarded by mutex_
  std::vector<sink::RejectedAgent> rejected_;  // guarded by mutex_
};

}  // namespace kavach::http
