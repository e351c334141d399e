#include "sink/store/audit.h"

#include <unistd.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "sink/store/postgres/session.h"
#include "sink/store/rollup.h"
#include "sink/store/sql.h"
#include "sink/store/sum_in_parts.h"

namespace kavach::sink {
namespace {

constexpr std::int64_t kIdMillisMax = (std::int64_t{1} << 48) - 1;

// The least id that an event of this millisecond can have.
UuidText first_id_of(std::int64_t ms) {
  const auto clamped = static_cast<std::uint64_t>(std::clamp<std::int64_t>(ms, 0, kIdMillisMax));
  Uuid id;
  for (std::size_t i = 0; i < 6; ++i) id.bytes[i] = static_cast<std::uint8_t>(clamped >> (40 - 8 * i));
  return UuidText(id);
}

struct IdRange {
  IdRange(WallMicros since, WallMicros until)
      : first(first_id_of(since / kMicrosPerMilli)), behind(first_id_of((until - 1) / kMicrosPerMilli + 1)) {}
  UuidText first, behind;
};

constexpr std::string_view kOfPeriod =
    " WHERE id >= ?1 AND id < ?2 AND received_at_us >= ?3 AND received_at_us < ?4";

class SqlAudit final : public StoreAudit {
 public:
  explicit SqlAudit(Connection connection) : connection_(std::move(connection)) {}

  StoreResult<void> prepare() {
    const std::string sums = sum_in_parts("cost_nano") + ", " + sum_in_parts("input_tokens") + ", " +
                             sum_in_parts("output_tokens");
    const std::string of_hours = " WHERE org_id = ?1 AND hour_s >= ?2 AND hour_s < ?3";
    const std::pair<Statement*, std::string> statements[] = {
        {&select_position_, "SELECT seq FROM shipper_positions WHERE journal_id = ?1 AND follower = ?2"},
        {&select_partitions_,
         "SELECT partition, generation, next_offset FROM partition_positions WHERE topic = ?1"},
        {&select_events_, "SELECT id, org_id, ts_us FROM events" + std::string(kOfPeriod)},
        {&select_keys_, "SELECT project_id, dedup_key, received_at_us, id, org_id FROM events" +
                            std::string(kOfPeriod) + " AND dedup_key IS NOT NULL"},
        {&select_doubled_before_,
         "SELECT events.id, events.org_id FROM events JOIN dedup_keys ON dedup_keys.project_id = "
         "events.project_id AND dedup_keys.dedup_key = events.dedup_key" +
             std::string(kOfPeriod) +
             " AND dedup_keys.seen_at_us < ?3 AND dedup_keys.seen_at_us >= events.received_at_us - ?5"},
        {&count_id_, "SELECT COUNT(*) FROM events WHERE id = ?1"},
        {&select_key_, "SELECT seen_at_us FROM dedup_keys WHERE project_id = ?1 AND dedup_key = ?2"},
        {&count_key_,
         "SELECT COUNT(*) FROM events WHERE id >= ?1 AND id < ?2 AND project_id = ?3 AND dedup_key = ?4 "
         "AND id <> ?5"},
        {&sum_events_,
         "SELECT COUNT(*), " + sums + " FROM events WHERE org_id = ?1 AND ts_us >= ?2 AND ts_us < ?3"},
        {&sum_hourly_, "SELECT SUM(events), " + sums + " FROM usage_hourly" + of_hours},
        {&sum_dimensions_, "SELECT SUM(events), " + sums + " FROM usage_hourly_dim" + of_hours},
    };
    return connection_.prepare_all(statements);
  }

  StoreResult<std::uint64_t> journal_position(const Uuid& journal_id) override {
    const UuidText journal(journal_id);
    auto rows = select_position_.rows(journal, kStoreFollower);
    const auto row = rows.next();
    if (!row) return row.error();
    return *row ? static_cast<std::uint64_t>(rows.integer(0)) : 0;
  }

  StoreResult<std::vector<PartitionPosition>> partition_positions(std::string_view topic) override {
    std::vector<PartitionPosition> positions;
    auto read = select_partitions_.for_each(
        [&](const Statement::Rows& row) {
          positions.push_back({std::string(topic), static_cast<std::int32_t>(row.integer(0)), row.integer(1),
                               row.integer(2)});
        },
        topic);
    if (!read) return read.error();
    return positions;
  }

  StoreResult<void> scan_events(WallMicros since, WallMicros until, const EventVisitor& each) override {
    const IdRange ids(since, until);
    return select_events_.for_each(
        [&each](const Statement::Rows& row) { visit(row, 0, row.integer(2), each); }, ids.first, ids.behind,
        since, until);
  }

  // Not by a query that groups or sorts: SQLite would do that in this process's memory, with whole keys.
  StoreResult<void> scan_doubled_keys(WallMicros since, WallMicros until, std::int64_t window_us,
                                      const EventVisitor& each) override {
    const auto repeated = repeated_keys(since, until);
    if (!repeated) return repeated.error();
    if (!repeated->empty()) {
      if (auto read = visit_doubled(since, until, window_us, *repeated, each); !read) return read;
    }
    const IdRange ids(since, until);
    return select_doubled_before_.for_each([&each](const Statement::Rows& row) { visit(row, 0, 0, each); },
                                           ids.first, ids.behind, since, until, window_us);
  }

  StoreResult<bool> has_event(const Uuid& id) override {
    const auto count = count_id_.scalar(UuidText(id));
    if (!count) return count.error();
    return *count != 0;
  }

  // The table of keys says when the event was accepted that has the key, which leads to its id: the table of
  // events has no index on keys.
  StoreResult<bool> has_key(const Uuid& project_id, std::string_view key, const Uuid& id) override {
    const UuidText project(project_id);
    WallMicros seen_at = 0;
    {
      auto rows = select_key_.rows(project, key);
      const auto row = rows.next();
      if (!row) return row.error();
      if (!*row) return false;
      seen_at = rows.integer(0);
    }
    const IdRange ids(seen_at, seen_at + 1);
    const auto count = count_key_.scalar(ids.first, ids.behind, project, key, UuidText(id));
    if (!count) return count.error();
    return *count != 0;
  }

  StoreResult<UsageSums> sum_usage(const Uuid& org_id, std::span<const HourRange> hours) override {
    auto transaction = Transaction::begin_read(connection_);
    if (!transaction) return transaction.error();
    const UuidText org(org_id);
    UsageSums sums;
    for (const HourRange& range : hours) {
      const auto events =
          sum(sum_events_, org, range.from_s * kMicrosPerSecond, range.to_s * kMicrosPerSecond);
      if (!events) return events.error();
      const auto hourly = sum(sum_hourly_, org, range.from_s, range.to_s);
      if (!hourly) return hourly.error();
      const auto by_dimension = sum(sum_dimensions_, org, range.from_s, range.to_s);
      if (!by_dimension) return by_dimension.error();
      sums.events.add(*events);
      sums.hourly.add(*hourly);
      sums.by_dimension.add(*by_dimension);
      sums.differ = sums.differ || *hourly != *events || *by_dimension != *events;
    }
    if (auto ended = transaction->commit(); !ended) return ended.error();
    return sums;
  }

 private:
  // The columns from `column` on are the id and the organization's.
  static void visit(const Statement::Rows& row, int column, WallMicros timestamp, const EventVisitor& each) {
    const auto id = Uuid::parse(row.text(column));
    const auto org_id = Uuid::parse(row.text(column + 1));
    if (id && org_id) each({*id, *org_id, timestamp});
  }

  static std::uint64_t fingerprint(const Statement::Rows& row) { return hash_of(row.text(0), row.text(1)); }

  // Fingerprints, in order, that more than one row of the period has: 8 bytes a row.
  StoreResult<std::vector<std::uint64_t>> repeated_keys(WallMicros since, WallMicros until) {
    std::vector<std::uint64_t> all;
    const IdRange ids(since, until);
    auto read = select_keys_.for_each([&](const Statement::Rows& row) { all.push_back(fingerprint(row)); },
                                      ids.first, ids.behind, since, until);
    if (!read) return read.error();
    std::sort(all.begin(), all.end());
    std::vector<std::uint64_t> repeated;
    for (std::size_t i = 1; i < all.size(); ++i) {
      if (all[i] == all[i - 1] && (repeated.empty() || repeated.back() != all[i])) repeated.push_back(all[i]);
    }
    return repeated;
  }

  StoreResult<void> visit_doubled(WallMicros since, WallMicros until, std::int64_t window_us,
                                  const std::vector<std::uint64_t>& repeated, const EventVisitor& each) {
    struct KeyedEvent {
      std::string project_id, key;
      WallMicros received_at;
      StoredEvent event;
    };
    std::vector<KeyedEvent> suspects;
    const IdRange ids(since, until);
    auto read = select_keys_.for_each(
        [&](const Statement::Rows& row) {
          if (!std::binary_search(repeated.begin(), repeated.end(), fingerprint(row))) return;
          visit(row, 3, 0, [&](const StoredEvent& event) {
            suspects.push_back({std::string(row.text(0)), std::string(row.text(1)), row.integer(2), event});
          });
        },
        ids.first, ids.behind, since, until);
    if (!read) return read.error();
    std::sort(suspects.begin(), suspects.end(), [](const KeyedEvent& a, const KeyedEvent& b) {
      return std::tie(a.project_id, a.key, a.received_at, a.event.id) <
             std::tie(b.project_id, b.key, b.received_at, b.event.id);
    });
    for (std::size_t i = 1; i < suspects.size(); ++i) {
      const KeyedEvent& before = suspects[i - 1];
      const KeyedEvent& own = suspects[i];
      if (own.project_id == before.project_id && own.key == before.key &&
          own.received_at - before.received_at <= window_us)
        each(own.event);
    }
    return {};
  }

  static StoreResult<UsageSum> sum(Statement& select, const UuidText& org, std::int64_t from,
                                   std::int64_t to) {
    auto rows = select.rows(org, from, to);
    const auto row = rows.next();
    if (!row) return row.error();
    return UsageSum{.events = rows.integer(0),
                    .cost = sum_at(rows, 1),
                    .input_tokens = sum_at(rows, 3),
                    .output_tokens = sum_at(rows, 5)};
  }

  Connection connection_;  // first: the statements go before it
  Statement select_position_, select_partitions_, select_events_, select_keys_, select_doubled_before_;
  Statement count_id_, select_key_, count_key_, sum_events_, sum_hourly_, sum_dimensions_;
};

StoreResult<std::unique_ptr<StoreAudit>> make_audit(Connection connection) {
  auto audit = std::make_unique<SqlAudit>(std::move(connection));
  if (auto prepared = audit->prepare(); !prepared) return prepared.error();
  return std::unique_ptr<StoreAudit>(std::move(audit));
}

}  // namespace

void UsageSum::add(const UsageSum& other) noexcept {
  events = saturating_add(events, other.events);
  cost = saturating_add(cost, other.cost);
  input_tokens = saturating_add(input_tokens, other.input_tokens);
  output_tokens = saturating_add(output_tokens, other.output_tokens);
}

StoreResult<std::unique_ptr<StoreAudit>> audit_sqlite(const std::string& path) {
  // Connecting would make it.
  if (::access(path.c_str(), F_OK) != 0) return StoreFailure{path + ": there is no such database", false};
  auto connection = connect_sqlite(path);
  if (!connection) return connection.error();
  return make_audit(std::move(*connection));
}

StoreResult<std::unique_ptr<StoreAudit>> audit_postgres(const std::string& url, std::int64_t timeout_ms) {
  auto session = connect_postgres(url, timeout_ms);
  if (!session) return session.error();
  // Sums over whole periods are worth helpers.
  if (auto set = (*session)->execute("RESET max_parallel_workers_per_gather"); !set) return set.error();
  return make_audit(Connection(std::move(*session)));
}

}  // namespace kavach::sink
