// The SQL store as the writer needs it: positions by partition, and who took which events.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/clock.h"
#include "sink/store/store.h"
#include "sink/writer/writer.h"

namespace kavach::sink {

// Prunes while it stores: deduplication keys that are out of `dedup_window_us` (0: never), and what else
// Store::prune() forgets.
// REQUIRES: the clock outlives it.
std::unique_ptr<WriterStore> store_for_writer(std::unique_ptr<Store> store, std::int64_t dedup_window_us,
                                              const Clock& clock = system_clock());

}  // namespace kavach::sink
