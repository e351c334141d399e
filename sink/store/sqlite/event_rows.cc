// Event rows in SQLite: two statements per event, in order.
#include "sink/store/event_rows.h"

namespace kavach::sink {
namespace {

// A row that is older than the window may still be there: it is pruned some time later, and counts as gone.
constexpr std::string_view kInsertDedupKey =
    "INSERT INTO dedup_keys (project_id, dedup_key, seen_at_us) VALUES (?1, ?2, ?3) "
    "ON CONFLICT (project_id, dedup_key) DO UPDATE SET seen_at_us = excluded.seen_at_us "
    "WHERE dedup_keys.seen_at_us < ?4";
constexpr std::string_view kInsertEvent =
    "INSERT INTO events (id, org_id, project_id, ingest_system, ts_us, received_at_us, agent_name, provider, "
    "model, "
    "run_id, input_tokens, output_tokens, cost_nano, cost_source, duration_ms, is_error, dedup_key, prompt, "
    "metadata) "
    "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 'client', ?14, ?15, ?16, ?17, ?18) "
    "ON CONFLICT (id) DO NOTHING";

class SqliteRows final : public EventRows {
 public:
  explicit SqliteRows(std::int64_t dedup_window_us) : dedup_window_us_(dedup_window_us) {}

  StoreResult<void> prepare(Connection& connection) {
    auto insert_key = connection.prepare(kInsertDedupKey);
    if (!insert_key) return insert_key.error();
    auto insert_event = connection.prepare(kInsertEvent);
    if (!insert_event) return insert_event.error();
    insert_dedup_key_ = std::move(*insert_key);
    insert_event_ = std::move(*insert_event);
    return {};
  }

  StoreResult<void> make_room(std::span<const Batch>, WallMicros) override { return {}; }
  StoreResult<void> drop_old(WallMicros) override { return {}; }

  StoreResult<void> insert(std::span<const Batch> batches, const Fresh& fresh) override {
    for (const Batch& batch : batches) {
      const UuidText org(batch.org_id);
      const UuidText project(batch.project_id);
      for (std::uint32_t i = 0; i < batch.events.size(); ++i) {
        const Event& event = batch.events[i];
        auto is_new = insert_event(batch, org, project, event, UuidText(event_id(batch.id, i)));
        if (!is_new) return is_new.error();
        if (*is_new) fresh(batch, event);
      }
    }
    return {};
  }

 private:
  StoreResult<bool> insert_event(const Batch& batch, const UuidText& org, const UuidText& project,
                                 const Event& event, const UuidText& id) {
    if (!event.idempotency_key.empty()) {
      auto remembered = insert_dedup_key_.run(project, event.idempotency_key, batch.received_at,
                                              batch.received_at - dedup_window_us_);
      if (!remembered) return remembered.error();
      if (*remembered == 0) return false;
    }
    auto inserted = insert_event_.run(
        id, org, project, name_of(batch.system), event.timestamp, batch.received_at, event.agent_name,
        event.provider, event.model, NullableText{event.run_id}, event.input_tokens, event.output_tokens,
        event.cost, event.duration_ms, event.is_error, NullableText{event.idempotency_key},
        NullableText{event.prompt}, NullableText{metadata_of(event)});
    if (!inserted) return inserted.error();
    return *inserted != 0;
  }

  const std::int64_t dedup_window_us_;
  Statement insert_dedup_key_, insert_event_;
};

}  // namespace

StoreResult<std::unique_ptr<EventRows>> make_sqlite_rows(Connection& connection,
                                                         std::int64_t dedup_window_us) {
  auto rows = std::make_unique<SqliteRows>(dedup_window_us);
  if (auto prepared = rows->prepare(connection); !prepared) return prepared.error();
  return std::unique_ptr<EventRows>(std::move(rows));
}

}  // namespace kavach::sink
