// Event rows: puts events into their table, each once, and says which of them were new. How that is done fast
// is what SQLite and Postgres differ in most: one statement per event there, a COPY of all of them here.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "engine/event.h"
#include "sink/store/sql.h"

namespace kavach::sink {

class EventRows {
 public:
  using Fresh = std::function<void(const Batch& batch, const Event& event)>;

  virtual ~EventRows() = default;
  // What has to be there before the transaction begins.
  virtual StoreResult<void> make_room(std::span<const Batch> batches, WallMicros now) = 0;
  // Inside a transaction; calls `fresh` for each event that was not stored before, in order.
  virtual StoreResult<void> insert(std::span<const Batch> batches, const Fresh& fresh) = 0;
  // Drops events that are kept no longer.
  virtual StoreResult<void> drop_old(WallMicros now) = 0;
};

StoreResult<std::unique_ptr<EventRows>> make_sqlite_rows(Connection& connection,
                                                         std::int64_t dedup_window_us);

// Contract names of what an event row holds.
std::string_view name_of(IngestSystem system) noexcept;
std::string_view metadata_of(const Event& event) noexcept;  // "" for none

}  // namespace kavach::sink
