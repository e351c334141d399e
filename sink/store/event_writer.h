// Event writer: events into their table, each once, and what follows from them into the aggregates.
//
// Works inside a transaction that the caller owns; a failure leaves that transaction to be rolled back.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "engine/event.h"
#include "sink/store/sqlite.h"
#include "sink/store/store.h"

namespace kavach::sink {

class EventWriter {
 public:
  // Prepares all statements. REQUIRES: a migrated database; the connection outlives the writer.
  static StoreResult<EventWriter> create(Connection& connection, std::int64_t dedup_window_us);
  EventWriter(EventWriter&&) noexcept;
  EventWriter& operator=(EventWriter&&) noexcept;
  ~EventWriter();

  // An event is a duplicate when its project has sent its deduplication key within the window before it, or
  // when its id is stored already (a frame that is read again). Duplicates change no sum. `node`
  // is whose use they are.
  StoreResult<ApplyOutcome> write(std::span<const Batch> batches, const Uuid& node);

 private:
  class Impl;
  explicit EventWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kavach::sink
