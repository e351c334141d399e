// Workload: batches of events as a fleet sends them, held in memory, and a journal that has them.
//
// One agent, model and run per batch, as the Python SDK sends; every batch is of one of `orgs` organizations.
// Keys are random, because where a key falls in an index is what storing it costs.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "engine/event.h"
#include "sink/journal/frame.h"
#include "sink/journal/journal.h"

namespace kavach::bench {

struct WorkloadOptions {
  std::size_t events = 200'000;
  std::size_t batch_events = 100;
  std::size_t orgs = 32;
};

class Workload {
 public:
  // REQUIRES: all of them > 0; events is a multiple of batch_events.
  explicit Workload(const WorkloadOptions& options);
  Workload(const Workload&) = delete;
  Workload& operator=(const Workload&) = delete;

  const std::vector<Batch>& batches() const noexcept { return batches_; }
  std::size_t events() const noexcept { return events_; }
  // One batch per event, with the ids of its event: as the writer has them, a record at a time.
  std::vector<Batch> single_events() const;

 private:
  std::size_t events_;
  std::deque<std::string> texts_;  // what the events' views point into; a deque never moves them
  std::vector<Batch> batches_;
};

// A journal of its own in a new folder below `directory`, with a workload in it, durable; the folder goes
// with it.
class FilledJournal {
 public:
  FilledJournal(const std::string& directory, const Workload& workload);
  ~FilledJournal();
  FilledJournal(const FilledJournal&) = delete;
  FilledJournal& operator=(const FilledJournal&) = delete;

  sink::Journal& journal() noexcept { return *journal_; }
  const std::string& directory() const noexcept { return directory_; }

 private:
  std::string directory_;
  std::vector<sink::Frame> frames_;
  std::atomic<std::size_t> delivered_{0}, failed_{0};
  std::unique_ptr<sink::Journal> journal_;
};

}  // namespace kavach::bench
