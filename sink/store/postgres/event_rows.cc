#include "sink/store/postgres/event_rows.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/calendar.h"
#include "engine/log.h"
#include "sink/store/rollup.h"

namespace kavach::sink {
namespace {

// What a session copies into, transaction by transaction. `round`: see PostgresRows::stage().
constexpr const char* kStaged =
    "CREATE TEMPORARY TABLE IF NOT EXISTS staged_events (round BIGINT, id TEXT COLLATE \"C\", org_id TEXT, "
    "project_id TEXT COLLATE \"C\", ingest_system TEXT, ts_us BIGINT, received_at_us BIGINT, agent_name "
    "TEXT, "
    "provider TEXT, model TEXT, run_id TEXT, input_tokens BIGINT, output_tokens BIGINT, cost_nano BIGINT, "
    "duration_ms BIGINT, is_error BIGINT, dedup_key TEXT COLLATE \"C\", prompt TEXT, metadata TEXT) "
    "ON COMMIT DELETE ROWS";
constexpr int kStagedColumns = 19;
constexpr const char* kCopy = "COPY staged_events FROM STDIN (FORMAT binary)";

// As in SQLite (sqlite/event_rows.cc): a key that was seen within the window before makes a duplicate, and an
// id that is stored already does. Keys are locked in their order, so that writers never wait for each other
// in a ring.
constexpr std::string_view kInsert =
    "WITH fresh AS (INSERT INTO dedup_keys (project_id, dedup_key, seen_at_us) "
    "SELECT project_id, dedup_key, received_at_us FROM staged_events "
    "WHERE round = ?1 AND dedup_key IS NOT NULL ORDER BY project_id, dedup_key "
    "ON CONFLICT (project_id, dedup_key) DO UPDATE SET seen_at_us = excluded.seen_at_us "
    "WHERE dedup_keys.seen_at_us < excluded.seen_at_us - ?2 "
    "RETURNING project_id, dedup_key) "
    "INSERT INTO events (id, org_id, project_id, ingest_system, ts_us, received_at_us, agent_name, provider, "
    "model, run_id, input_tokens, output_tokens, cost_nano, cost_source, duration_ms, is_error, dedup_key, "
    "prompt, metadata) SELECT id, org_id, project_id, ingest_system, ts_us, received_at_us, agent_name, "
    "provider, model, run_id, input_tokens, output_tokens, cost_nano, 'client', duration_ms, "
    "is_error::INTEGER, dedup_key, prompt, metadata FROM staged_events s WHERE round = ?1 "
    "AND (dedup_key IS NULL OR (project_id, dedup_key) IN (SELECT project_id, dedup_key FROM fresh)) "
    "ON CONFLICT (id, ts_us) DO NOTHING RETURNING id";

// Days that get a partition of their own: what is older, or ahead of tomorrow, is in events_default.
constexpr std::int64_t kDaysBack = 35;
constexpr std::int64_t kDayUs = 24 * kMicrosPerHour;

std::string partition_of(std::int64_t day) {
  const std::chrono::year_month_day date{std::chrono::sys_days{std::chrono::days{day}}};
  return fmt::format("events_{:04}{:02}{:02}", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()));
}

// COPY's binary form, of one batch of events after the other.
class CopyData {
 public:
  void clear() {
    using namespace std::string_view_literals;
    bytes_.assign("PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"sv);
  }

  void add(std::int64_t round, const UuidText& id, const UuidText& org, const UuidText& project,
           const Batch& batch, const Event& event) {
    number<std::int16_t>(kStagedColumns);
    integer(round);
    text(id.view());
    text(org.view());
    text(project.view());
    text(name_of(batch.system));
    integer(event.timestamp);
    integer(batch.received_at);
    text(event.agent_name);
    text(event.provider);
    text(event.model);
    nullable(event.run_id);
    integer(event.input_tokens);
    integer(event.output_tokens);
    integer(event.cost);
    integer(event.duration_ms);
    integer(event.is_error ? 1 : 0);
    nullable(event.idempotency_key);
    nullable(event.prompt);
    nullable(metadata_of(event));
  }

  std::string_view finish() {
    number<std::int16_t>(-1);
    return bytes_;
  }

 private:
  // In network byte order.
  template <typename Integer>
  void number(Integer value) {
    char bytes[sizeof(value)];
    for (std::size_t i = 0; i < sizeof(value); ++i) {
      bytes[i] = static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * (sizeof(value) - 1 - i)));
    }
    bytes_.append(bytes, sizeof(value));
  }
  void integer(std::int64_t value) {
    number<std::int32_t>(sizeof(value));
    number(value);
  }
  void nullable(std::string_view value) { value.empty() ? number<std::int32_t>(-1) : text(value); }
  // A NUL, which Postgres cannot hold, becomes U+FFFD.
  void text(std::string_view value) {
    const auto nuls = static_cast<std::size_t>(std::count(value.begin(), value.end(), '\0'));
    number(static_cast<std::int32_t>(value.size() + 2 * nuls));
    if (nuls == 0) {
      bytes_.append(value);
      return;
    }
    for (const char c : value) c == '\0' ? bytes_.append("\xef\xbf\xbd") : bytes_.append(1, c);
  }

  std::string bytes_;
};

class PostgresRows final : public EventRows {
 public:
  PostgresRows(Connection& connection, PostgresSession& session, const PostgresRowsOptions& options)
      : connection_(connection), session_(session), options_(options) {}

  StoreResult<void> prepare() {
    const std::pair<Statement*, std::string> statements[] = {
        {&insert_, std::string(kInsert)},
        {&has_partition_,
         "SELECT COUNT(*) FROM pg_class WHERE relname = ?1 AND relnamespace = "
         "current_schema()::regnamespace"},
        {&is_in_default_,
         "SELECT CASE WHEN EXISTS (SELECT 1 FROM events_default WHERE ts_us >= ?1 AND ts_us "
         "< ?2) THEN 1 ELSE 0 END"},
        {&old_partitions_,
         "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE "
         "inhparent = 'events'::regclass AND relname ~ '^events_[0-9]{8}$' AND relname < ?1"},
        {&delete_old_, "DELETE FROM events_default WHERE ts_us < ?1"},
    };
    return connection_.prepare_all(statements);
  }

  StoreResult<void> make_room(std::span<const Batch> batches, WallMicros now) override {
    const std::int64_t today = day_of(now);
    const std::int64_t first =
        today - (options_.retention_days > 0 ? std::min(kDaysBack, options_.retention_days - 1) : kDaysBack);
    std::set<std::int64_t> days{today, today + 1};
    for (const Batch& batch : batches) {
      for (const Event& event : batch.events) {
        const std::int64_t day = day_of(event.timestamp);
        if (day >= first && day <= today + 1) days.insert(day);
      }
    }
    known_days_.erase(known_days_.begin(), known_days_.lower_bound(first));
    for (const std::int64_t day : days) {
      if (known_days_.contains(day)) continue;
      if (auto made = make_partition(day); !made) return made.error();
      known_days_.insert(day);
    }
    if (auto ready = session_.ready(); !ready) return ready.error();
    if (staged_generation_ == session_.generation()) return {};
    if (auto made = connection_.execute(kStaged); !made) return made.error();
    staged_generation_ = session_.generation();
    return {};
  }

  StoreResult<void> insert(std::span<const Batch> batches, const Fresh& fresh) override {
    if (staged_generation_ != session_.generation())
      return StoreFailure{"postgres: the connection was lost", true};
    const std::int64_t rounds = stage(batches);
    if (auto copied = session_.copy_in(kCopy, copy_.finish()); !copied) return copied.error();
    inserted_.clear();
    for (std::int64_t round = 0; round < rounds; ++round) {
      auto read = insert_.for_each(
          [&](const Statement::Rows& row) {
            if (const auto id = Uuid::parse(row.text(0))) inserted_.insert(*id);
          },
          round, options_.dedup_window_us);
      if (!read) return read.error();
    }
    for (const Batch& batch : batches) {
      for (std::uint32_t i = 0; i < batch.events.size(); ++i) {
        if (inserted_.erase(event_id(batch.id, i)) != 0) fresh(batch, batch.events[i]);
      }
    }
    return {};
  }

  StoreResult<void> drop_old(WallMicros now) override {
    if (options_.retention_days == 0) return {};
    const std::int64_t first_kept = day_of(now) - options_.retention_days + 1;
    std::vector<std::string> old;
    auto read =
        old_partitions_.for_each([&old](const Statement::Rows& row) { old.emplace_back(row.text(0)); },
                                 std::string_view(partition_of(first_kept)));
    if (!read) return read.error();
    for (const std::string& partition : old) {
      if (auto dropped = connection_.execute(("DROP TABLE IF EXISTS " + partition).c_str()); !dropped)
        return dropped.error();
      log::info("store: dropped {}, which is older than {} days", partition, options_.retention_days);
    }
    if (auto deleted = delete_old_.run(first_kept * kDayUs); !deleted) return deleted.error();
    return {};
  }

 private:
  // Returns the number of rounds. In one round a key comes once: the second time it comes with another time
  // of acceptance it is a duplicate or not by what became of the first.
  std::int64_t stage(std::span<const Batch> batches) {
    struct Last {
      std::int64_t round;
      WallMicros received_at;
    };
    std::unordered_map<OrgTextKey, Last, HashKey> keys;
    copy_.clear();
    std::int64_t rounds = 1;
    for (const Batch& batch : batches) {
      const UuidText org(batch.org_id);
      const UuidText project(batch.project_id);
      for (std::uint32_t i = 0; i < batch.events.size(); ++i) {
        const Event& event = batch.events[i];
        std::int64_t round = 0;
        if (!event.idempotency_key.empty()) {
          const auto [last, is_first] =
              keys.try_emplace({batch.project_id, event.idempotency_key}, Last{0, batch.received_at});
          if (!is_first) {
            if (last->second.received_at == batch.received_at) continue;
            round = last->second.round + 1;
            last->second = {round, batch.received_at};
            rounds = std::max(rounds, round + 1);
          }
        }
        copy_.add(round, UuidText(event_id(batch.id, i)), org, project, batch, event);
      }
    }
    return rounds;
  }

  StoreResult<void> make_partition(std::int64_t day) {
    const std::string name = partition_of(day);
    auto found = has_partition_.scalar(std::string_view(name));
    if (!found) return found.error();
    if (*found != 0) return {};
    auto transaction = Transaction::begin_write(connection_);
    if (!transaction) return transaction.error();
    // Kavach's own lock for partitions: "kavachp" in ASCII.
    auto locked = connection_.execute("SELECT pg_advisory_xact_lock(30224983575980144)");
    if (!locked) return locked.error();
    found = has_partition_.scalar(std::string_view(name));
    if (!found) return found.error();
    if (*found != 0) return {};
    // Rows of that day that are in events_default already keep it there.
    const auto misplaced = is_in_default_.scalar(day * kDayUs, (day + 1) * kDayUs);
    if (!misplaced) return misplaced.error();
    if (*misplaced != 0) return {};
    auto made =
        connection_.execute(fmt::format("CREATE TABLE {} PARTITION OF events FOR VALUES FROM ({}) TO ({})",
                                        name, day * kDayUs, (day + 1) * kDayUs)
                                .c_str());
    if (!made) return made.error();
    return transaction->commit();
  }

  struct HashKey {
    std::size_t operator()(const OrgTextKey& key) const noexcept { return key.hash(); }
  };
  struct HashId {
    std::size_t operator()(const Uuid& id) const noexcept {
      std::uint64_t halves[2];
      std::memcpy(halves, id.bytes.data(), sizeof(halves));
      return (halves[0] ^ std::rotl(halves[1], 32)) * 0x9e3779b97f4a7c15ULL;
    }
  };

  Connection& connection_;
  PostgresSession& session_;
  const PostgresRowsOptions options_;
  Statement insert_, has_partition_, is_in_default_, old_partitions_, delete_old_;
  std::uint64_t staged_generation_ = 0;  // of the session that has the temporary table
  std::set<std::int64_t> known_days_;
  CopyData copy_;
  std::unordered_set<Uuid, HashId> inserted_;
};

}  // namespace

StoreResult<std::unique_ptr<EventRows>> make_postgres_rows(Connection& connection, PostgresSession& session,
                                                           const PostgresRowsOptions& options) {
  auto rows = std::make_unique<PostgresRows>(connection, session, options);
  if (auto prepared = rows->prepare(); !prepared) return prepared.error();
  return std::unique_ptr<EventRows>(std::move(rows));
}

}  // namespace kavach::sink
