#include "sink/store/postgres/event_rows.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
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

// What of a row is Kavach's to say, in the order in which it is copied.
constexpr std::string_view kColumns =
    "id, org_id, project_id, ingest_system, ts_us, received_at_us, agent_name, provider, model, run_id, "
    "input_tokens, output_tokens, cost_nano, cost_source, duration_ms, is_error, dedup_key, prompt, metadata";
constexpr std::int16_t kColumnCount = 19;

// A key that was seen within the window before makes a duplicate, and an id that is stored already does, as
// in SQLite (sqlite/event_rows.cc). Keys are locked in their order, so that writers never wait for each other
// in a ring.
constexpr std::string_view kRememberKeys =
    "INSERT INTO dedup_keys (project_id, dedup_key, seen_at_us) SELECT {} "
    "ORDER BY project_id COLLATE \"C\", dedup_key COLLATE \"C\" "
    "ON CONFLICT (project_id, dedup_key) DO UPDATE SET seen_at_us = excluded.seen_at_us "
    "WHERE dedup_keys.seen_at_us < excluded.seen_at_us - ";
constexpr std::string_view kGivenKeys =
    "project_id, dedup_key, seen_at_us FROM unnest(?1::TEXT[], ?2::TEXT[], ?3::BIGINT[]) "
    "AS given(project_id, dedup_key, seen_at_us)";

// What a session copies into where the rows are not all new. `round`: see PostgresRows::gather().
constexpr const char* kStaged =
    "CREATE TEMPORARY TABLE IF NOT EXISTS staged_events (round BIGINT, id TEXT COLLATE \"C\", org_id TEXT, "
    "project_id TEXT COLLATE \"C\", ingest_system TEXT, ts_us BIGINT, received_at_us BIGINT, agent_name "
    "TEXT, "
    "provider TEXT, model TEXT, run_id TEXT, input_tokens BIGINT, output_tokens BIGINT, cost_nano BIGINT, "
    "cost_source TEXT, duration_ms BIGINT, is_error INTEGER, dedup_key TEXT COLLATE \"C\", prompt TEXT, "
    "metadata TEXT) ON COMMIT DELETE ROWS";
constexpr std::string_view kStagedKeys =
    "project_id, dedup_key, received_at_us FROM staged_events WHERE round = ?1 AND dedup_key IS NOT NULL";

std::string insert_keys_sql() {
  return fmt::format(fmt::runtime(kRememberKeys), kGivenKeys) + "?4";
}

std::string insert_new_sql() {
  return fmt::format(
      "WITH fresh AS ({}?2 RETURNING project_id, dedup_key) INSERT INTO events ({}) SELECT {} FROM "
      "staged_events WHERE round = ?1 AND (dedup_key IS NULL OR (project_id, dedup_key) IN (SELECT "
      "project_id, dedup_key FROM fresh)) ON CONFLICT (id, ts_us) DO NOTHING RETURNING id",
      fmt::format(fmt::runtime(kRememberKeys), kStagedKeys), kColumns, kColumns);
}

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

  void add(const UuidText& id, const UuidText& org, const UuidText& project, const Batch& batch,
           const Event& event) {
    number<std::int16_t>(kColumnCount);
    fields(id, org, project, batch, event);
  }
  // For staged_events.
  void add(std::int64_t round, const UuidText& id, const UuidText& org, const UuidText& project,
           const Batch& batch, const Event& event) {
    number<std::int16_t>(kColumnCount + 1);
    integer(round);
    fields(id, org, project, batch, event);
  }

  std::string_view finish() {
    number<std::int16_t>(-1);
    return bytes_;
  }

 private:
  void fields(const UuidText& id, const UuidText& org, const UuidText& project, const Batch& batch,
              const Event& event) {
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
    text("client");
    integer(event.duration_ms);
    number<std::int32_t>(sizeof(std::int32_t));
    number<std::int32_t>(event.is_error ? 1 : 0);
    nullable(event.idempotency_key);
    nullable(event.prompt);
    nullable(metadata_of(event));
  }

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

// The text of an array: {"a","b"}.
class ArrayText {
 public:
  void clear() { text_.assign(1, '{'); }
  void add(std::string_view value) {
    begin();
    text_ += '"';
    for (const char c : value) {
      if (c == '"' || c == '\\') text_ += '\\';
      text_ += c;
    }
    text_ += '"';
  }
  void add(std::int64_t value) {
    begin();
    text_ += fmt::format_int(value).str();
  }
  std::string_view finish() {
    text_ += '}';
    return text_;
  }

 private:
  void begin() {
    if (text_.size() > 1) text_ += ',';
  }
  std::string text_;
};

class PostgresRows final : public EventRows {
 public:
  PostgresRows(Connection& connection, PostgresSession& session, const PostgresRowsOptions& options)
      : connection_(connection), session_(session), options_(options) {}

  StoreResult<void> prepare() {
    const std::pair<Statement*, std::string> statements[] = {
        {&insert_keys_, insert_keys_sql()},
        {&insert_new_, insert_new_sql()},
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
    const std::int64_t rounds = gather(batches);
    // Who sent an event twice has been told apart in front of the journal; what is repeated here was sent
    // again after a crash. So all of it is new nearly always, and then goes into its table without a detour.
    if (rounds == 1) {
      const auto all_new = insert_all();
      if (!all_new) return all_new.error();
      if (*all_new) {
        for (const Row& row : rows_) fresh(*row.batch, row.event());
        return {};
      }
    }
    return insert_new(rounds, fresh);
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
  // An event that may be new.
  struct Row {
    const Batch* batch;
    std::uint32_t index;
    std::int64_t round;
    const Event& event() const noexcept { return batch->events[index]; }
    UuidText id() const noexcept { return UuidText(event_id(batch->id, index)); }
  };

  // Returns the number of rounds. In one round a key comes once: the second time it comes with another time
  // of acceptance it is a duplicate or not by what became of the first.
  std::int64_t gather(std::span<const Batch> batches) {
    struct Last {
      std::int64_t round;
      WallMicros received_at;
    };
    std::unordered_map<OrgTextKey, Last, HashKey> keys;
    rows_.clear();
    std::int64_t rounds = 1;
    for (const Batch& batch : batches) {
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
        rows_.push_back({&batch, i, round});
      }
    }
    return rounds;
  }

  // Calls add(row, org, project) for each row, with the ids of its batch as text.
  template <typename Add>
  void each_row(Add add) const {
    const Batch* batch = nullptr;
    std::optional<UuidText> org, project;
    for (const Row& row : rows_) {
      if (row.batch != batch) {
        batch = row.batch;
        org.emplace(batch->org_id);
        project.emplace(batch->project_id);
      }
      add(row, *org, *project);
    }
  }

  // False: not all of them are new, and nothing was stored.
  StoreResult<bool> insert_all() {
    if (auto marked = connection_.execute("SAVEPOINT all_new"); !marked) return marked.error();
    const bool all_new = remember_all() && copy_all();
    if (all_new) return true;
    // Whatever refused them: insert_new() meets it again, and says so.
    if (auto undone = connection_.execute("ROLLBACK TO SAVEPOINT all_new"); !undone) return undone.error();
    return false;
  }

  bool remember_all() {
    std::int64_t keys = 0;
    projects_.clear();
    keys_.clear();
    times_.clear();
    each_row([&](const Row& row, const UuidText&, const UuidText& project) {
      if (row.event().idempotency_key.empty()) return;
      ++keys;
      projects_.add(project.view());
      keys_.add(row.event().idempotency_key);
      times_.add(row.batch->received_at);
    });
    if (keys == 0) return true;
    const auto remembered =
        insert_keys_.run(projects_.finish(), keys_.finish(), times_.finish(), options_.dedup_window_us);
    return remembered && *remembered == keys;
  }

  bool copy_all() {
    copy_.clear();
    each_row([&](const Row& row, const UuidText& org, const UuidText& project) {
      copy_.add(row.id(), org, project, *row.batch, row.event());
    });
    return session_.copy_in(copy_events_.c_str(), copy_.finish()).has_value();
  }

  StoreResult<void> insert_new(std::int64_t rounds, const Fresh& fresh) {
    copy_.clear();
    each_row([&](const Row& row, const UuidText& org, const UuidText& project) {
      copy_.add(row.round, row.id(), org, project, *row.batch, row.event());
    });
    if (auto copied = session_.copy_in("COPY staged_events FROM STDIN (FORMAT binary)", copy_.finish());
        !copied)
      return copied.error();
    inserted_.clear();
    for (std::int64_t round = 0; round < rounds; ++round) {
      auto read = insert_new_.for_each(
          [&](const Statement::Rows& row) {
            if (const auto id = Uuid::parse(row.text(0))) inserted_.insert(*id);
          },
          round, options_.dedup_window_us);
      if (!read) return read.error();
    }
    for (const Row& row : rows_) {
      if (inserted_.erase(event_id(row.batch->id, row.index)) != 0) fresh(*row.batch, row.event());
    }
    return {};
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
  const std::string copy_events_ = fmt::format("COPY events ({}) FROM STDIN (FORMAT binary)", kColumns);
  Statement insert_keys_, insert_new_, has_partition_, is_in_default_, old_partitions_, delete_old_;
  std::uint64_t staged_generation_ = 0;  // of the session that has the temporary table
  std::set<std::int64_t> known_days_;
  // Kept for their memory.
  std::vector<Row> rows_;
  ArrayText projects_, keys_, times_;
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
