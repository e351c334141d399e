// Restore: what a node remembers before its first request: the keys of the deduplication window, what its
// organizations have used of their quotas and budgets, and which of their agents are active.
//
// It is what the store has, and what the journal holds beyond the store's position. An event is in exactly
// one of the two, so use that is added up comes out exact, wherever a kill -9 struck.
//
// Where events come into the store through Kafka there is no such position. Then the store has those events
// of the journal whose keys it has, and an event that is only in Kafka is remembered as long as the journal
// has not recycled its segment (JournalOptions::released_segments_kept).
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "engine/clock.h"
#include "engine/result.h"
#include "quota/dedup.h"
#include "quota/ledger.h"
#include "sink/journal/journal.h"
#include "sink/store/store.h"

namespace kavach::http {

// Where the memory of the organizations of one shard lives.
struct HomeShard {
  quota::DedupTable& dedup;
  quota::Ledger& ledger;
};

struct RestoreOptions {
  std::string journal_directory;
  sink::CorruptionPolicy on_corruption = sink::CorruptionPolicy::kStop;
  std::int64_t dedup_window_us = 0;
  bool is_stored_by_writer = false;
  std::uint64_t sent_seq =
      0;  // then: the last frame that is in Kafka; of events without a key nothing else tells
  WallMicros now = 0;
};

// Fills `shards`, by their ids. Use is this node's own: the store has it by the journal's id.
// REQUIRES: nothing runs yet; `hasher` is the one of the requests.
Status restore(sink::Store& store, const sink::Journal& journal, const quota::DedupHasher& hasher,
               std::span<const HomeShard> shards, const RestoreOptions& options);

}  // namespace kavach::http
