#include "http/restore.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <tuple>
#include <unordered_map>

#include "engine/calendar.h"
#include "engine/log.h"
#include "http/auth/key_table.h"
#include "quota/fleet_state.h"
#include "quota/limits.h"
#include "sink/journal/frame.h"

namespace kavach::http {
namespace {

using quota::BudgetPeriod;
using quota::Usage;

class Restorer {
 public:
  Restorer(const quota::DedupHasher& hasher, std::span<const HomeShard> shards, const RestoreOptions& options)
      : hasher_(hasher), shards_(shards), options_(options), today_(day_of(options.now)) {}

  Status read_store(sink::Store& store, const Uuid& node);
  Status read_journal(const sink::Journal& journal, std::uint64_t stored_seq);
  void hand_out_usage() const;
  void log_counts() const;

 private:
  // Around midnight the clocks of a fleet, or the same clock before and after a restart, name different days.
  std::array<std::int64_t, 3> days() const { return {today_ - 1, today_, today_ + 1}; }
  bool is_remembered(BudgetPeriod period, std::int64_t number) const;

  const HomeShard& home_of(const Uuid& org) const {
    return shards_[home_shard(org, static_cast<std::uint32_t>(shards_.size()))];
  }
  // False: the key is known already.
  bool add_key(const Uuid& org, const Uuid& project, std::string_view key, WallMicros seen) {
    return home_of(org).dedup.restore(hasher_(project, key), seen, options_.now);
  }
  void add_agent(const Uuid& org, std::string_view name, WallMicros seen) {
    home_of(org).ledger.restore_agent(org, quota::agent_fingerprint(org, name), seen);
  }
  void add_burst(const Uuid& org, WallMicros seen) {
    if (seen > options_.now - (quota::FleetState::kBurstWindowSeconds + 1) * kMicrosPerSecond)
      ++burst_[{org, seen / kMicrosPerSecond}];
  }
  void add_agents(const Batch& batch);
  void add_use(const Batch& batch, const Event& event);

  Status read_keys(sink::Store& store);
  Status read_usage(sink::Store& store, const Uuid& node);
  Status read_agents(sink::Store& store);

  WallMicros active_since() const { return options_.now - quota::Roster::kActiveSeconds * kMicrosPerSecond; }

  const quota::DedupHasher& hasher_;
  const std::span<const HomeShard> shards_;
  const RestoreOptions& options_;
  const std::int64_t today_;
  // Ordered, so that the numbers of a period ascend, as the ledger wants them.
  std::map<std::tuple<Uuid, BudgetPeriod, std::int64_t>, Usage> usage_;
  // By second. Of what is stored only events with a key are known: all that come from an SDK.
  std::map<std::tuple<Uuid, std::int64_t>, std::int64_t> burst_;
  std::uint64_t keys_ = 0, agents_ = 0, batches_ = 0, events_ = 0;
};

bool Restorer::is_remembered(BudgetPeriod period, std::int64_t number) const {
  for (const std::int64_t day : days()) {
    if (quota::period_number(period, start_of_day(day)) == number) return true;
  }
  return false;
}

Status Restorer::read_keys(sink::Store& store) {
  const auto directory = store.load_directory();
  if (!directory) return failure("cannot read the keys: " + directory.error().message);
  std::unordered_map<Uuid, Uuid, UuidHash> org_of_project;
  for (const sink::KeyRecord& key : directory->keys) org_of_project.emplace(key.project_id, key.org_id);
  const auto scanned =
      store.scan_dedup(options_.now - options_.dedup_window_us,
                       [&](const Uuid& project, std::string_view key, std::int64_t seen_at_us) {
                         const auto org = org_of_project.find(project);
                         if (org == org_of_project.end()) return;  // nobody can send to it
                         add_key(org->second, project, key, seen_at_us);
                         add_burst(org->second, seen_at_us);
                         ++keys_;
                       });
  if (!scanned) return failure("cannot read the deduplication keys: " + scanned.error().message);
  return {};
}

Status Restorer::read_usage(sink::Store& store, const Uuid& node) {
  for (const std::int64_t day : days()) {
    const auto scanned =
        store.scan_usage(node, day, month_of(start_of_day(day)), [&](const sink::NodeUsage& found) {
          const auto period = quota::budget_period_of(found.period);
          if (!period) return;
          // Not added: months and the total come with each of the days.
          usage_[{found.org_id, *period, found.number}] = {.events = found.events,
                                                           .cost = found.cost,
                                                           .input_tokens = found.input_tokens,
                                                           .output_tokens = found.output_tokens,
                                                           .duration_ms = found.duration_ms};
        });
    if (!scanned) return failure("cannot read the use of quotas: " + scanned.error().message);
  }
  return {};
}

Status Restorer::read_agents(sink::Store& store) {
  const auto scanned = store.scan_agents(
      active_since(), [&](const Uuid& org, std::string_view name, WallMicros last_received) {
        add_agent(org, name, last_received);
        ++agents_;
      });
  if (!scanned) return failure("cannot read the active agents: " + scanned.error().message);
  return {};
}

Status Restorer::read_store(sink::Store& store, const Uuid& node) {
  if (Status read = read_keys(store); !read) return read;
  if (Status read = read_usage(store, node); !read) return read;
  return read_agents(store);
}

void Restorer::add_agents(const Batch& batch) {
  if (batch.received_at < active_since()) return;
  std::string_view previous;
  for (const Event& event : batch.events) {
    if (event.agent_name == previous) continue;
    add_agent(batch.org_id, event.agent_name, batch.received_at);
    previous = event.agent_name;
  }
}

void Restorer::add_use(const Batch& batch, const Event& event) {
  add_burst(batch.org_id, batch.received_at);
  const Usage use = quota::usage_of(event);
  for (const auto period : {BudgetPeriod::kDaily, BudgetPeriod::kMonthly, BudgetPeriod::kTotal}) {
    const std::int64_t number = quota::period_number(period, batch.received_at);
    if (is_remembered(period, number)) usage_[{batch.org_id, period, number}] += use;
  }
}

// What was released is only read as far as the journal still has it, for its keys.
Status Restorer::read_journal(const sink::Journal& journal, std::uint64_t stored_seq) {
  auto reader =
      sink::JournalReader::open(options_.journal_directory, journal.released_seq(), options_.on_corruption);
  if (!reader) return reader.error();
  Batch batch;
  std::string arena;
  for (;;) {
    auto entry = (*reader)->next(journal.durable_seq());
    if (!entry) return entry.error();
    if (!entry->has_value()) return {};
    if (!sink::decode_batch((*entry)->payload, batch, arena)) {
      return failure(
          fmt::format("journal frame {} cannot be decoded: written by a newer version?", (*entry)->seq));
    }
    for (const Event& event : batch.events) {
      const bool is_new = add_key(batch.org_id, batch.project_id, event.idempotency_key, batch.received_at);
      const bool is_told_by_key = options_.is_stored_by_writer && !event.idempotency_key.empty();
      if (is_told_by_key ? is_new : (*entry)->seq > stored_seq) add_use(batch, event);
    }
    add_agents(batch);
    ++batches_;
    events_ += batch.events.size();
  }
}

void Restorer::hand_out_usage() const {
  for (const auto& [key, usage] : usage_) {
    const auto& [org, period, number] = key;
    home_of(org).ledger.restore_usage(org, period, number, usage);
  }
  for (const auto& [key, events] : burst_) {
    const auto& [org, second] = key;
    home_of(org).ledger.restore_burst(org, second * kMicrosPerSecond, events);
  }
}

void Restorer::log_counts() const {
  std::size_t orgs = 0;
  for (const HomeShard& shard : shards_) orgs += shard.ledger.org_count();
  log::info(
      "remembered: {} keys and {} agents from the store, {} batches ({} events) from the journal's tail; use "
      "of {} organizations",
      keys_, agents_, batches_, events_, orgs);
}

}  // namespace

Status restore(sink::Store& store, const sink::Journal& journal, const quota::DedupHasher& hasher,
               std::span<const HomeShard> shards, const RestoreOptions& options) {
  const auto stored_seq = store.position(journal.id());
  if (!stored_seq) return failure("cannot read the store's position: " + stored_seq.error().message);
  Restorer restorer(hasher, shards, options);
  if (Status read = restorer.read_store(store, journal.id()); !read) return read;
  const std::uint64_t known_seq =
      options.is_stored_by_writer ? std::max(*stored_seq, options.sent_seq) : *stored_seq;
  if (Status read = restorer.read_journal(journal, known_seq); !read) return read;
  restorer.hand_out_usage();
  restorer.log_counts();
  return {};
}

}  // namespace kavach::http
