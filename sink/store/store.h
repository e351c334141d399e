// Store: what Kavach keeps in SQL: organizations, keys, events, agents, runs, roll-ups.
//
// The interface that SQLite (open_sqlite) and later Postgres implement. Schema: contract/entities.md section
// 3, by numbered migrations (sink/store/migrations.h).
//
// A Store is one connection and is used by one thread at a time. Calls block; none belongs on a shard's loop.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/clock.h"
#include "engine/event.h"
#include "engine/ids.h"
#include "engine/result.h"

namespace kavach::sink {

// A deduplication window that no event leaves.
inline constexpr std::int64_t kRememberForEver = std::numeric_limits<std::int64_t>::max();

using KeyDigest = std::array<std::uint8_t, 32>;  // SHA-256 of the raw API key

struct StoreFailure {
  // No aggregate: that would be constructible from a string alone, and StoreResult<std::string> ambiguous.
  StoreFailure() = default;
  StoreFailure(std::string what, bool may_succeed_later)
      : message(std::move(what)), retryable(may_succeed_later) {}

  std::string message;
  bool retryable = false;  // locked, disk full, I/O: the same call may succeed later
};
template <typename T>
using StoreResult = Result<T, StoreFailure>;
[[noreturn]] void throw_exception_from_error(const StoreFailure& failure,
                                             const boost::source_location& where);

struct OrgRecord {
  Uuid id;
  Uuid project_id;  // its default project
  std::string name;
  std::string tier;                 // free, pro, max
  std::string subscription_status;  // trialing, active, past_due, paused, cancelled
  bool deleted = false;
};

struct KeyRecord {
  Uuid id;
  Uuid org_id;
  Uuid project_id;
  KeyDigest digest;
  bool active = false;
};

// Everything that a shard needs to authenticate.
struct Directory {
  std::uint64_t version = 0;
  std::vector<OrgRecord> orgs;
  std::vector<KeyRecord> keys;  // revoked ones too: their use is counted
};

struct NewKey {
  std::string name;
  std::string prefix;  // first 16 characters of the raw key
  KeyDigest digest;
};

struct KeySummary {
  Uuid id;
  Uuid org_id;
  std::string name;
  std::string prefix;
  bool active = false;
};

// What happened to one key since the last report.
struct KeyUse {
  Uuid key_id;
  std::int64_t last_used_us = 0;  // 0: not used
  std::uint64_t failures = 0;     // uses after revocation
  std::int64_t last_failed_us = 0;
};

struct ApplyOutcome {
  std::uint64_t stored = 0;
  std::uint64_t duplicates = 0;  // refused by the unique index
};

class Store {
 public:
  virtual ~Store() = default;

  // --- shipper ---------------------------------------------------------------------------------------
  // The last frame of journal `journal_id` that was stored; 0 when none was.
  virtual StoreResult<std::uint64_t> position(const Uuid& journal_id) = 0;
  // Stores events, agents, runs, roll-ups and the position `seq` in one transaction. Harmless to repeat.
  // The position becomes `seq`, also when it was higher (a journal that was put back from a copy).
  virtual StoreResult<ApplyOutcome> apply(std::span<const Batch> batches, const Uuid& journal_id,
                                          std::uint64_t seq) = 0;
  // Forgets deduplication keys older than `before_us`, at most `rows_max`; returns how many went.
  virtual StoreResult<std::uint64_t> prune_dedup(std::int64_t before_us, std::uint64_t rows_max) = 0;

  // --- directory -------------------------------------------------------------------------------------
  // A number that grows whenever an organization, key or subscription changes in what load_directory() shows,
  // in whatever process. Cheap.
  virtual StoreResult<std::uint64_t> directory_version() = 0;
  // Organizations with their subscriptions, and the AgentKavach keys, as they were at one moment. A row whose
  // ids are no UUIDs is left out with a warning: it must not lock out everybody else.
  virtual StoreResult<Directory> load_directory() = 0;
  // Last use (never moves back) and failures; unknown keys are ignored. Does not change directory_version().
  virtual StoreResult<void> record_key_use(std::span<const KeyUse> uses) = 0;

  // Calls `each` for every deduplication key seen since `since_us`, one at a time, in no order: however many
  // there are, none is held in memory. `key` is valid during the call.
  using DedupVisitor =
      std::function<void(const Uuid& project_id, std::string_view key, std::int64_t seen_at_us)>;
  virtual StoreResult<void> scan_dedup(std::int64_t since_us, const DedupVisitor& each) = 0;

  // --- administration --------------------------------------------------------------------------------
  // An organization with its default project, an active subscription and its first key. REQUIRES: a known
  // tier.
  virtual StoreResult<OrgRecord> create_org(std::string_view name, std::string_view tier,
                                            const NewKey& first_key) = 0;
  virtual StoreResult<KeySummary> create_key(const Uuid& org_id, const NewKey& key) = 0;
  // By id (with or without `key_`), or by its whole prefix when only one active key has it. Failure says
  // which of not found, ambiguous, already revoked.
  virtual StoreResult<KeySummary> revoke_key(std::string_view id_or_prefix) = 0;
  // Reads one row: the file is there and can be read.
  virtual StoreResult<void> ping() = 0;
};

// Opens and migrates; creates the file (mode 0600) and its folder when missing. Several connections and
// processes may have the file open; a call waits up to 5 s for another writer, then fails as retryable.
// An event whose key was seen more than `dedup_window_us` before it is no duplicate.
// REQUIRES: the clock outlives the store.
StoreResult<std::unique_ptr<Store>> open_sqlite(const std::string& path, const Clock& clock = system_clock(),
                                                std::int64_t dedup_window_us = kRememberForEver);

}  // namespace kavach::sink
