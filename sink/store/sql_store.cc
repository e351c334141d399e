// The Store over one SQL connection, SQLite's or Postgres's: transactions, positions and scans here, the
// events' SQL in event_writer.cc, the directory's in directory_tables.cc, an administrator's changes in
// admin.cc.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/calendar.h"
#include "sink/store/admin.h"
#include "sink/store/directory_tables.h"
#include "sink/store/event_writer.h"
#include "sink/store/migrations.h"
#include "sink/store/postgres/event_rows.h"
#include "sink/store/postgres/session.h"
#include "sink/store/rollup.h"
#include "sink/store/sql.h"
#include "sink/store/store.h"

namespace kavach::sink {
namespace {

// Days and months of which node_usage is kept, beside the running ones.
constexpr std::int64_t kUsageDays = 2;
constexpr std::int64_t kUsageMonths = 2;
// Minutes go an hour late: a read that has begun, also by a clock that is behind, finds those it counts on.
constexpr std::int64_t kMinuteGraceUs = kMicrosPerHour;

class SqlStore final : public Store {
 public:
  SqlStore(Connection connection, const Clock& clock) : connection_(std::move(connection)), clock_(clock) {}

  StoreResult<std::uint64_t> position(const Uuid& journal_id) override {
    const UuidText journal(journal_id);
    auto rows = select_position_.rows(journal, kStoreFollower);
    auto row = rows.next();
    if (!row) return row.error();
    return *row ? static_cast<std::uint64_t>(rows.integer(0)) : 0;
  }

  // Data and position share a transaction: after a crash the journal is read again from exactly behind what
  // is stored, so nothing is lost and nothing needs to be recognised as a repetition.
  StoreResult<ApplyOutcome> apply(std::span<const Batch> batches, const Uuid& journal_id,
                                  std::uint64_t seq) override {
    return write(batches, journal_id, [&]() -> StoreResult<void> {
      auto moved = upsert_position_.run(UuidText(journal_id), kStoreFollower, seq, clock_.wall());
      if (!moved) return moved.error();
      return {};
    });
  }

  StoreResult<PartitionPosition> claim_partition(std::string_view topic, std::int32_t partition) override {
    PartitionPosition claimed{std::string(topic), partition};
    auto rows = claim_partition_.rows(topic, partition, clock_.wall());
    const auto row = rows.next();
    if (!row) return row.error();
    claimed.generation = rows.integer(0);
    claimed.next_offset = rows.integer(1);
    // The claim counts when the statement has ended.
    if (const auto end = rows.next(); !end) return end.error();
    return claimed;
  }

  StoreResult<ApplyOutcome> apply_at(std::span<const Batch> batches, const Uuid& node,
                                     std::span<const PartitionPosition> positions) override {
    return write(batches, node, [&]() -> StoreResult<void> {
      for (const PartitionPosition& at : positions) {
        auto moved = move_partition_.run(std::string_view(at.topic), at.partition, at.generation,
                                         at.next_offset, clock_.wall());
        if (!moved) return moved.error();
        if (*moved == 1) continue;
        StoreFailure fenced{
            fmt::format("partition {} of {} was claimed by another consumer", at.partition, at.topic), false};
        fenced.fenced = true;
        return fenced;
      }
      return {};
    });
  }

  void set_usage_listener(UsageListener listener) override { usage_listener_ = std::move(listener); }

  StoreResult<std::uint64_t> prune(std::int64_t dedup_before_us, std::uint64_t rows_max) override {
    const WallMicros now = clock_.wall();
    const StoreResult<std::int64_t> pruned[] = {
        prune_dedup_.run(dedup_before_us, rows_max),
        prune_usage_.run(PeriodKey::kDaily, day_of(now) - kUsageDays, rows_max),
        prune_usage_.run(PeriodKey::kMonthly, month_of(now) - kUsageMonths, rows_max),
        prune_minutes_.run((now - kMinuteRowsUs - kMinuteGraceUs) / kMicrosPerSecond, rows_max)};
    if (auto dropped = event_writer_->drop_old(now); !dropped) return dropped.error();
    std::uint64_t sum = 0;
    for (const auto& rows : pruned) {
      if (!rows) return rows.error();
      sum += static_cast<std::uint64_t>(*rows);
    }
    return sum;
  }

  StoreResult<std::uint64_t> directory_version() override {
    auto version = select_version_.scalar();
    if (!version) return version.error();
    return static_cast<std::uint64_t>(*version);
  }

  StoreResult<Directory> load_directory() override { return sink::load_directory(connection_); }

  StoreResult<void> record_key_use(std::span<const KeyUse> uses) override {
    return without_waiting([&] { return sink::record_key_use(connection_, uses); });
  }
  StoreResult<void> record_rejections(std::span<const RejectedAgent> rejected) override {
    return without_waiting([&] { return sink::record_rejections(connection_, rejected); });
  }

  StoreResult<void> scan_dedup(std::int64_t since_us, const DedupVisitor& each) override {
    // The plus keeps the index on seen_at_us out: nearly all keys are younger than `since_us`, and reading
    // the table from front to back is much cheaper than one look-up per key.
    auto select = connection_.prepare(
        "SELECT project_id, dedup_key, seen_at_us FROM dedup_keys WHERE +seen_at_us >= ?1");
    if (!select) return select.error();
    return select->for_each(
        [&each](const Statement::Rows& row) {
          if (const auto project_id = Uuid::parse(row.text(0)))
            each(*project_id, row.text(1), row.integer(2));
        },
        since_us);
  }

  StoreResult<void> scan_usage(const Uuid& node, std::int64_t day, std::int64_t month,
                               const UsageVisitor& each) override {
    auto select = connection_.prepare(
        "SELECT org_id, period, number, events, cost_nano, input_tokens, output_tokens, duration_ms "
        "FROM node_usage WHERE node = ?1 AND (period = ?2 AND number = ?3 OR period = ?4 AND number = ?5 "
        "OR period = ?6)");
    if (!select) return select.error();
    return select->for_each(
        [&each](const Statement::Rows& row) {
          const auto org_id = Uuid::parse(row.text(0));
          if (!org_id) return;
          each({*org_id, row.text(1), row.integer(2), row.integer(3), row.integer(4), row.integer(5),
                row.integer(6), row.integer(7)});
        },
        UuidText(node), PeriodKey::kDaily, day, PeriodKey::kMonthly, month, PeriodKey::kTotal);
  }

  StoreResult<void> scan_agents(WallMicros since_us, const AgentVisitor& each) override {
    auto select =
        connection_.prepare("SELECT org_id, name, last_received_us FROM agents WHERE last_received_us >= ?1");
    if (!select) return select.error();
    return select->for_each(
        [&each](const Statement::Rows& row) {
          if (const auto org_id = Uuid::parse(row.text(0))) each(*org_id, row.text(1), row.integer(2));
        },
        since_us);
  }

  StoreResult<OrgRecord> create_org(std::string_view name, std::string_view tier,
                                    const NewKey& first_key) override {
    return sink::create_org(connection_, name, tier, first_key, clock_.wall(), random_);
  }

  StoreResult<KeySummary> create_key(const Uuid& org_id, const NewKey& key) override {
    return sink::create_key(connection_, org_id, key, clock_.wall(), random_);
  }

  StoreResult<KeySummary> revoke_key(std::string_view id_or_prefix) override {
    return sink::revoke_key(connection_, id_or_prefix, clock_.wall());
  }

  StoreResult<OrgDetails> show_org(const Uuid& org_id) override {
    return sink::show_org(connection_, org_id);
  }

  StoreResult<OrgDetails> change_org(const Uuid& org_id, const OrgChange& change) override {
    return sink::change_org(connection_, org_id, change, clock_.wall());
  }

  StoreResult<BudgetRecord> upsert_budget(const Uuid& org_id, std::string_view type, std::string_view period,
                                          double limit) override {
    return sink::upsert_budget(connection_, org_id, type, period, limit, clock_.wall(), random_);
  }

  StoreResult<BudgetRecord> delete_budget(const Uuid& org_id, std::string_view type,
                                          std::string_view period) override {
    return sink::delete_budget(connection_, org_id, type, period);
  }

  StoreResult<std::vector<BudgetRecord>> list_budgets(const Uuid& org_id) override {
    return sink::list_budgets(connection_, org_id);
  }

  StoreResult<AgentState> kill_agent(const Uuid& org_id, std::string_view name,
                                     std::string_view reason) override {
    return sink::kill_agent(connection_, org_id, name, reason, clock_.wall());
  }

  StoreResult<AgentState> reactivate_agent(const Uuid& org_id, std::string_view name) override {
    return sink::reactivate_agent(connection_, org_id, name);
  }

  StoreResult<void> ping() override {
    if (auto version = select_version_.scalar(); !version) return version.error();
    return {};
  }

  // `make_rows`: how this database takes events.
  template <typename MakeRows>
  StoreResult<void> prepare(MakeRows make_rows) {
    const std::pair<Statement*, std::string> statements[] = {
        {&select_position_, "SELECT seq FROM shipper_positions WHERE journal_id = ?1 AND follower = ?2"},
        {&upsert_position_,
         "INSERT INTO shipper_positions (journal_id, follower, seq, updated_at_us) VALUES (?1, ?2, ?3, ?4) "
         "ON CONFLICT (journal_id, follower) DO UPDATE SET seq = excluded.seq, updated_at_us = "
         "excluded.updated_at_us"},
        {&prune_dedup_,
         "DELETE FROM dedup_keys WHERE (project_id, dedup_key) IN (SELECT project_id, dedup_key FROM "
         "dedup_keys "
         "WHERE seen_at_us < ?1 ORDER BY seen_at_us LIMIT ?2)"},
        {&prune_usage_,
         "DELETE FROM node_usage WHERE (node, org_id, period, number) IN "
         "(SELECT node, org_id, period, number FROM node_usage WHERE period = ?1 AND number < ?2 LIMIT ?3)"},
        {&prune_minutes_,
         "DELETE FROM usage_minute WHERE (project_id, minute_s, agent_name, provider, model) IN "
         "(SELECT project_id, minute_s, agent_name, provider, model FROM usage_minute WHERE minute_s < ?1 "
         "ORDER BY minute_s LIMIT ?2)"},
        {&claim_partition_,
         "INSERT INTO partition_positions (topic, partition, generation, next_offset, updated_at_us) "
         "VALUES (?1, ?2, 1, 0, ?3) ON CONFLICT (topic, partition) DO UPDATE SET "
         "generation = partition_positions.generation + 1, updated_at_us = excluded.updated_at_us "
         "RETURNING generation, next_offset"},
        {&move_partition_,
         "UPDATE partition_positions SET next_offset = ?4, updated_at_us = ?5 "
         "WHERE topic = ?1 AND partition = ?2 AND generation = ?3"},
        {&select_version_, "SELECT version FROM directory_version WHERE id = 1"},
    };
    if (auto prepared = connection_.prepare_all(statements); !prepared) return prepared.error();
    auto rows = make_rows(connection_);
    if (!rows) return rows.error();
    auto event_writer = EventWriter::create(connection_, std::move(*rows));
    if (!event_writer) return event_writer.error();
    event_writer_ = std::make_unique<EventWriter>(std::move(*event_writer));
    return {};
  }

 private:
  // Whoever records also looks for revoked keys, and must not wait for a long transaction of another.
  template <typename Record>
  StoreResult<void> without_waiting(Record record) {
    constexpr int kPatienceMs = 50;
    connection_.set_lock_timeout(kPatienceMs);
    auto recorded = record();
    connection_.set_lock_timeout(Connection::kLockTimeoutMs);
    return recorded;
  }

  template <typename Move>
  StoreResult<ApplyOutcome> write(std::span<const Batch> batches, const Uuid& node, Move move) {
    if (auto made = event_writer_->make_room(batches, clock_.wall()); !made) return made.error();
    auto transaction = Transaction::begin_write(connection_);
    if (!transaction) return transaction.error();
    auto outcome = event_writer_->write(batches, node);
    if (!outcome) return outcome;
    if (auto moved = move(); !moved) return moved.error();
    if (auto committed = transaction->commit(); !committed) return committed.error();
    if (usage_listener_ && outcome->stored > 0) event_writer_->tell(usage_listener_);
    return outcome;
  }

  Connection connection_;  // first: the statements go before it
  const Clock& clock_;
  Random random_;
  Statement select_position_, upsert_position_, prune_dedup_, prune_usage_, prune_minutes_, select_version_;
  Statement claim_partition_, move_partition_;
  std::unique_ptr<EventWriter> event_writer_;
  UsageListener usage_listener_;
};

}  // namespace

StoreResult<std::unique_ptr<Store>> open_sqlite(const std::string& path, const Clock& clock,
                                                std::int64_t dedup_window_us) {
  auto connection = connect_sqlite(path);
  if (!connection) return connection.error();
  if (auto migrated = migrate(*connection, sqlite_migrations(), clock.wall()); !migrated) {
    return StoreFailure{path + ": " + migrated.error().message, migrated.error().retryable};
  }
  auto store = std::make_unique<SqlStore>(std::move(*connection), clock);
  auto prepared = store->prepare([&](Connection& own) { return make_sqlite_rows(own, dedup_window_us); });
  if (!prepared) return prepared.error();
  return std::unique_ptr<Store>(std::move(store));
}

StoreResult<std::unique_ptr<Store>> open_postgres(const PostgresOptions& options, const Clock& clock) {
  {
    // Others may migrate at the same time, and large tables take their time.
    constexpr int kPatienceMs = 60'000;
    auto migrating = connect_postgres(options.url, std::max<std::int64_t>(kPatienceMs, options.timeout_ms));
    if (!migrating) return migrating.error();
    Connection connection(std::move(*migrating));
    connection.set_lock_timeout(kPatienceMs);
    if (auto migrated = migrate(connection, postgres_migrations(), clock.wall()); !migrated)
      return migrated.error();
  }
  auto connected = connect_postgres(options.url, options.timeout_ms);
  if (!connected) return connected.error();
  PostgresSession& session = **connected;
  Connection connection(std::move(*connected));
  auto store = std::make_unique<SqlStore>(std::move(connection), clock);
  auto prepared = store->prepare([&](Connection& own) {
    return make_postgres_rows(own, session, {options.dedup_window_us, options.retention_days});
  });
  if (!prepared) return prepared.error();
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace kavach::sink
