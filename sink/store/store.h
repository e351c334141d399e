// Store: what Kavach keeps in SQL: organizations, keys, limits, events, agents, runs, roll-ups.
//
// The interface to SQLite (open_sqlite) and Postgres (open_postgres). Schema: contract/entities.md section
// 3, by numbered migrations (sink/store/migrations.h).
//
// A Store is one connection and is used by one thread at a time. Calls block; none belongs on a shard's loop.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
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

// The name under which a store remembers how far it followed a journal.
inline constexpr std::string_view kStoreFollower = "store";

using KeyDigest = std::array<std::uint8_t, 32>;  // SHA-256 of the raw API key

struct StoreFailure {
  // No aggregate: that would be constructible from a string alone, and StoreResult<std::string> ambiguous.
  StoreFailure() = default;
  StoreFailure(std::string what, bool may_succeed_later)
      : message(std::move(what)), retryable(may_succeed_later) {}

  std::string message;
  bool retryable = false;  // locked, disk full, I/O, server away: the same call may succeed later
  bool refused = false;    // for what the rows contain: the others of the call may be right
  bool fenced = false;     // another consumer has claimed the partition: nothing was stored
};
template <typename T>
using StoreResult = Result<T, StoreFailure>;
[[noreturn]] void throw_exception_from_error(const StoreFailure& failure,
                                             const boost::source_location& where);

// An organization's own limit: absent where its tier's holds, kNoLimit where none does.
using OwnLimit = std::optional<std::int64_t>;
inline constexpr std::int64_t kNoLimit = -1;

struct OrgLimits {
  OwnLimit events_per_day = {};
  OwnLimit agents_max = {};
  OwnLimit burst_per_minute = {};
};

struct OrgRecord {
  Uuid id;
  Uuid project_id;  // its default project
  std::string name;
  std::string tier;                 // free, pro, max
  std::string subscription_status;  // trialing, active, past_due, paused, cancelled
  bool deleted = false;
  OrgLimits limits = {};
};

struct KeyRecord {
  Uuid id;
  Uuid org_id;
  Uuid project_id;
  KeyDigest digest;
  bool active = false;
};

// A budget of a whole organization, in the contract's words and units.
struct BudgetRecord {
  std::string id;
  Uuid org_id;
  std::string type;    // cost, tokens_total, tokens_input, tokens_output, calls, duration
  std::string period;  // daily, monthly, total
  double limit = 0;
  std::string unit;  // usd, tokens, calls, ms
};

struct AgentName {
  Uuid org_id;
  std::string name;
};

// Everything that a shard needs to authenticate, and to know what an organization may do.
struct Directory {
  std::uint64_t version = 0;
  std::vector<OrgRecord> orgs;
  std::vector<KeyRecord> keys;  // revoked ones too: their use is counted
  std::vector<BudgetRecord> budgets;
  std::vector<AgentName> killed_agents;
};

// One organization as an administrator sees it.
struct OrgDetails {
  OrgRecord org;
  std::vector<BudgetRecord> budgets;       // by type and period
  std::vector<std::string> killed_agents;  // by name
};

// What an administrator changes of an organization; what is absent stays.
struct OrgChange {
  std::optional<std::string> tier = {};
  std::optional<std::string> subscription_status = {};
  std::optional<OwnLimit> events_per_day = {};
  std::optional<OwnLimit> agents_max = {};
  std::optional<OwnLimit> burst_per_minute = {};

  bool is_empty() const noexcept {
    return !tier && !subscription_status && !events_per_day && !agents_max && !burst_per_minute;
  }
};

struct AgentState {
  Uuid org_id;
  std::string name;
  std::optional<WallMicros> killed_at;
  std::string kill_reason;
};

// What one node admitted of an organization's events in one period, by the time of acceptance.
struct NodeUsage {
  Uuid org_id;
  std::string_view period;  // daily, monthly, total
  std::int64_t number = 0;  // days or months since 1970; 0 for total
  std::int64_t events = 0;
  std::int64_t cost = 0;  // nano-dollars
  std::int64_t input_tokens = 0;
  std::int64_t output_tokens = 0;
  std::int64_t duration_ms = 0;
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

// An agent whose events were refused because its organization has as many agents as it may.
struct RejectedAgent {
  Uuid org_id;
  std::string name;
  std::int64_t at_us = 0;
};

// What a transaction counted use of: an agent by its name, or a run by its id.
struct UsedName {
  Uuid org_id;
  std::string_view name;
};
// Told after the transaction that stored events of these, each once, by the thread that stored them; the
// names are valid during the call.
using UsageListener = std::function<void(std::span<const UsedName> agents, std::span<const UsedName> runs)>;

struct ApplyOutcome {
  std::uint64_t stored = 0;
  std::uint64_t duplicates = 0;  // refused by the unique index
};

// How far a consumer of a partitioned log came, as it claimed it.
struct PartitionPosition {
  std::string topic;
  std::int32_t partition = 0;
  std::int64_t generation = 0;   // of the claim
  std::int64_t next_offset = 0;  // the first that is not stored
};

class Store {
 public:
  virtual ~Store() = default;

  // --- shipper ---------------------------------------------------------------------------------------
  // The last frame of journal `journal_id` that was stored; 0 when none was.
  virtual StoreResult<std::uint64_t> position(const Uuid& journal_id) = 0;
  // Stores events, agents, runs, roll-ups, the node's use and the position `seq` in one transaction. Harmless
  // to repeat. The position becomes `seq`, also when it was higher (a journal that was put back from a copy).
  virtual StoreResult<ApplyOutcome> apply(std::span<const Batch> batches, const Uuid& journal_id,
                                          std::uint64_t seq) = 0;
  // Makes the caller the one consumer of a partition, and tells where it left off (0: at the start). Whoever
  // had it before is fenced off: its next apply_at() stores nothing and fails with StoreFailure::fenced.
  virtual StoreResult<PartitionPosition> claim_partition(std::string_view topic, std::int32_t partition) = 0;
  // As apply(), with other positions than a journal's: `next_offset` of each becomes its partition's, in the
  // same transaction, if its generation is still the partition's. `node` is whose use the events are.
  virtual StoreResult<ApplyOutcome> apply_at(std::span<const Batch> batches, const Uuid& node,
                                             std::span<const PartitionPosition> positions) = 0;
  // Of apply() and apply_at(). It must be quick. REQUIRES: before the first of them.
  virtual void set_usage_listener(UsageListener listener) = 0;
  // Forgets what nobody asks for any more: deduplication keys older than `dedup_before_us`, the use of days
  // and months that ended more than two days and two months ago, and the sums of minutes of more
  // than 49 hours ago. At most `rows_max` rows of each of the four; returns how many went.
  virtual StoreResult<std::uint64_t> prune(std::int64_t dedup_before_us, std::uint64_t rows_max) = 0;

  // --- directory -------------------------------------------------------------------------------------
  // A number that grows whenever something changes in what load_directory() shows, in whatever process.
  // Storing events does not change it. Cheap.
  virtual StoreResult<std::uint64_t> directory_version() = 0;
  // Organizations with their subscriptions and limits, and the AgentKavach keys, budgets and killed agents,
  // as they were at one moment. A row whose ids are no UUIDs is left out with a warning: it must not lock out
  // everybody else.
  virtual StoreResult<Directory> load_directory() = 0;
  // Last use (never moves back) and failures; unknown keys are ignored. Does not change directory_version().
  virtual StoreResult<void> record_key_use(std::span<const KeyUse> uses) = 0;
  // When each was rejected last (never moves back). Of names that an organization has sent no event of, a
  // thousand are kept: whoever makes names up fills no table. Does not change directory_version().
  virtual StoreResult<void> record_rejections(std::span<const RejectedAgent> rejected) = 0;

  // Calls `each` for every deduplication key seen since `since_us`, one at a time, in no order: however many
  // there are, none is held in memory. `key` is valid during the call.
  using DedupVisitor =
      std::function<void(const Uuid& project_id, std::string_view key, std::int64_t seen_at_us)>;
  virtual StoreResult<void> scan_dedup(std::int64_t since_us, const DedupVisitor& each) = 0;
  // Likewise what `node` (a journal's id) admitted in the day and the month of these numbers, and in total.
  using UsageVisitor = std::function<void(const NodeUsage& usage)>;
  virtual StoreResult<void> scan_usage(const Uuid& node, std::int64_t day, std::int64_t month,
                                       const UsageVisitor& each) = 0;
  // Likewise every agent of which an event was accepted since `since_us`.
  using AgentVisitor =
      std::function<void(const Uuid& org_id, std::string_view name, WallMicros last_received)>;
  virtual StoreResult<void> scan_agents(WallMicros since_us, const AgentVisitor& each) = 0;

  // --- administration --------------------------------------------------------------------------------
  // All fail when there is no such organization (or it is deleted), and then change nothing.

  // An organization with its default project, an active subscription and its first key. REQUIRES: a known
  // tier.
  virtual StoreResult<OrgRecord> create_org(std::string_view name, std::string_view tier,
                                            const NewKey& first_key) = 0;
  virtual StoreResult<KeySummary> create_key(const Uuid& org_id, const NewKey& key) = 0;
  // By id (with or without `key_`), or by its whole prefix when only one active key has it. Failure says
  // which of not found, ambiguous, already revoked.
  virtual StoreResult<KeySummary> revoke_key(std::string_view id_or_prefix) = 0;

  virtual StoreResult<OrgDetails> show_org(const Uuid& org_id) = 0;
  // All of `change` at once, so that nobody is ever judged by half of it. REQUIRES: a known tier and status,
  // limits of at least 0 or kNoLimit.
  virtual StoreResult<OrgDetails> change_org(const Uuid& org_id, const OrgChange& change) = 0;

  // An organization has one budget per type and period; setting it again changes its limit. Failure names
  // what is no type or period of an organization's budget, or no limit (a finite number above 0).
  virtual StoreResult<BudgetRecord> upsert_budget(const Uuid& org_id, std::string_view type,
                                                  std::string_view period, double limit) = 0;
  virtual StoreResult<BudgetRecord> delete_budget(const Uuid& org_id, std::string_view type,
                                                  std::string_view period) = 0;
  virtual StoreResult<std::vector<BudgetRecord>> list_budgets(const Uuid& org_id) = 0;

  // Marks the agent as killed, known or not: it may be stopped before its first event. An agent that is
  // killed already keeps its time, and its reason unless there is a new one.
  virtual StoreResult<AgentState> kill_agent(const Uuid& org_id, std::string_view name,
                                             std::string_view reason) = 0;
  // Takes the mark off, if there is one. Fails when the organization has no such agent.
  virtual StoreResult<AgentState> reactivate_agent(const Uuid& org_id, std::string_view name) = 0;

  // Reads one row: the file is there and can be read.
  virtual StoreResult<void> ping() = 0;
};

// A key behind which an event is no duplicate, and events that are dropped, by days: 0 keeps them for ever.
struct PostgresOptions {
  std::string url;  // postgres://user:password@host:port/database?parameter=value
  std::int64_t dedup_window_us = kRememberForEver;
  std::int64_t retention_days = 0;   // events older than that go with their partition
  std::int64_t timeout_ms = 10'000;  // a server that says nothing for so long is given up
};

// Connects and migrates; several processes may do so at once. A connection that is lost, or a server that
// does not answer in time, is a retryable failure, and the next call connects anew. No message shows the
// password. REQUIRES: the clock outlives the store.
StoreResult<std::unique_ptr<Store>> open_postgres(const PostgresOptions& options,
                                                  const Clock& clock = system_clock());

// Opens and migrates; creates the file (mode 0600) and its folder when missing. Several connections and
// processes may have the file open; a call waits up to 5 s for another writer, then fails as retryable.
// An event whose key was seen more than `dedup_window_us` before it is no duplicate.
// REQUIRES: the clock outlives the store.
StoreResult<std::unique_ptr<Store>> open_sqlite(const std::string& path, const Clock& clock = system_clock(),
                                                std::int64_t dedup_window_us = kRememberForEver);

}  // namespace kavach::sink
