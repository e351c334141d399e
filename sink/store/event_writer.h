// Event writer: events into their table, each once, and what follows from them into the aggregates.
//
// Works inside a transaction that the caller owns; a failure leaves that transaction to be rolled back.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "engine/event.h"
#include "sink/store/event_rows.h"
#include "sink/store/sql.h"
#include "sink/store/store.h"

namespace kavach::sink {

class EventWriter {
 public:
  // Prepares all statements. REQUIRES: a migrated database; the connection outlives the writer.
  static StoreResult<EventWriter> create(Connection& connection, std::unique_ptr<EventRows> rows);
  EventWriter(EventWriter&&) noexcept;
  EventWriter& operator=(EventWriter&&) noexcept;
  ~EventWriter();

  // Before the transaction: what EventRows::make_room() says.
  StoreResult<void> make_room(std::span<const Batch> batches, WallMicros now);
  StoreResult<void> drop_old(WallMicros now);
  // An event is a duplicate when its project has sent its deduplication key within the window before it, or
  // when its id is stored already (a frame that is read again). Duplicates change no sum. `node`
  // is whose use they are.
  StoreResult<ApplyOutcome> write(std::span<const Batch> batches, const Uuid& node);
  // Of what the last write() stored. REQUIRES: its batches live.
  void tell(const UsageListener& listener) const;

 private:
  class Impl;
  explicit EventWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kavach::sink
