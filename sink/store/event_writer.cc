#include "sink/store/event_writer.h"

#include <string>
#include <utility>
#include <vector>

#include "sink/store/model_list.h"
#include "sink/store/rollup.h"
#include "sink/store/upsert.h"

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
constexpr std::string_view kSelectRunModels = "SELECT models FROM runs WHERE org_id = ?1 AND run_id = ?2";

constexpr std::string_view kPartialMetadata = R"({"partial":true})";

constexpr UpsertColumn kMinuteColumns[] = {
    {"project_id", Merge::kKey},   {"minute_s", Merge::kKey},      {"agent_name", Merge::kKey},
    {"provider", Merge::kKey},     {"model", Merge::kKey},         {"org_id", Merge::kKeep},
    {"events", Merge::kSum},       {"errors", Merge::kSum},        {"cost_nano", Merge::kSum},
    {"input_tokens", Merge::kSum}, {"output_tokens", Merge::kSum}, {"duration_ms", Merge::kSum},
    {"timed_events", Merge::kSum}};
constexpr UpsertColumn kHourColumns[] = {{"project_id", Merge::kKey},
                                         {"hour_s", Merge::kKey},
                                         {"agent_name", Merge::kKey},
                                         {"provider", Merge::kKey},
                                         {"model", Merge::kKey},
                                         {"org_id", Merge::kKeep},
                                         {"events", Merge::kSum},
                                         {"errors", Merge::kSum},
                                         {"cost_nano", Merge::kSum},
                                         {"error_cost_nano", Merge::kSum},
                                         {"input_tokens", Merge::kSum},
                                         {"output_tokens", Merge::kSum},
                                         {"cached_tokens", Merge::kSum},
                                         {"cache_write_tokens", Merge::kSum},
                                         {"duration_ms", Merge::kSum},
                                         {"timed_events", Merge::kSum},
                                         {"max_output_tokens", Merge::kMax},
                                         {"last_event_us", Merge::kMax}};
constexpr UpsertColumn kDimensionColumns[] = {{"org_id", Merge::kKey},       {"hour_s", Merge::kKey},
                                              {"agent_name", Merge::kKey},   {"provider", Merge::kKey},
                                              {"user_id", Merge::kKey},      {"tag_set_id", Merge::kKey},
                                              {"events", Merge::kSum},       {"cost_nano", Merge::kSum},
                                              {"input_tokens", Merge::kSum}, {"output_tokens", Merge::kSum}};
constexpr UpsertColumn kDayColumns[] = {
    {"day_s", Merge::kKey},  {"project_id", Merge::kKey}, {"provider", Merge::kKey},
    {"model", Merge::kKey},  {"org_id", Merge::kKeep},    {"events", Merge::kSum},
    {"errors", Merge::kSum}, {"cost_nano", Merge::kSum},  {"tokens", Merge::kSum}};
constexpr UpsertColumn kAgentColumns[] = {{"org_id", Merge::kKey},
                                          {"name", Merge::kKey},
                                          {"provider", Merge::kOfLatest},
                                          {"model", Merge::kOfLatest},
                                          {"first_seen_us", Merge::kMin},
                                          {"last_event_us", Merge::kMax},
                                          {"total_events", Merge::kSum},
                                          {"total_errors", Merge::kSum},
                                          {"total_cost_nano", Merge::kSum},
                                          {"total_input_tokens", Merge::kSum},
                                          {"total_output_tokens", Merge::kSum},
                                          {"total_duration_ms", Merge::kSum},
                                          {"last_received_us", Merge::kMax}};
constexpr UpsertColumn kRunColumns[] = {
    {"org_id", Merge::kKey},         {"run_id", Merge::kKey},        {"agent_name", Merge::kOfEarliest},
    {"first_event_us", Merge::kMin}, {"last_event_us", Merge::kMax}, {"last_is_error", Merge::kOfLatest},
    {"total_events", Merge::kSum},   {"error_count", Merge::kSum},   {"cost_nano", Merge::kSum},
    {"input_tokens", Merge::kSum},   {"output_tokens", Merge::kSum}, {"llm_duration_ms", Merge::kSum},
    {"models", Merge::kReplace}};
constexpr UpsertColumn kPeriodColumns[] = {
    {"node", Merge::kKey},         {"org_id", Merge::kKey},        {"period", Merge::kKey},
    {"number", Merge::kKey},       {"events", Merge::kSum},        {"cost_nano", Merge::kSum},
    {"input_tokens", Merge::kSum}, {"output_tokens", Merge::kSum}, {"duration_ms", Merge::kSum}};

std::string_view name_of(IngestSystem system) noexcept {
  switch (system) {
    case IngestSystem::kAgentKavach:
      return "ak";
    case IngestSystem::kLlmGovernor:
      return "lg";
    case IngestSystem::kAgentCost:
      return "ac";
  }
  return "ak";
}

}  // namespace

class EventWriter::Impl {
 public:
  explicit Impl(std::int64_t dedup_window_us) : dedup_window_us_(dedup_window_us) {}

  StoreResult<void> prepare(Connection& connection) {
    const std::pair<Statement*, std::string> statements[] = {
        {&insert_dedup_key_, std::string(kInsertDedupKey)},
        {&insert_event_, std::string(kInsertEvent)},
        {&select_run_models_, std::string(kSelectRunModels)},
        {&add_minute_, upsert_sql({"usage_minute"}, kMinuteColumns)},
        {&add_hour_, upsert_sql({"usage_hourly"}, kHourColumns)},
        {&add_dimension_, upsert_sql({"usage_hourly_dim"}, kDimensionColumns)},
        {&add_day_, upsert_sql({"usage_daily_platform"}, kDayColumns)},
        {&add_agent_, upsert_sql({"agents", "first_seen_us", "last_event_us"}, kAgentColumns)},
        {&add_run_, upsert_sql({"runs", "first_event_us", "last_event_us"}, kRunColumns)},
        {&add_period_, upsert_sql({"node_usage"}, kPeriodColumns)},
    };
    for (const auto& [statement, sql] : statements) {
      auto prepared = connection.prepare(sql);
      if (!prepared) return prepared.error();
      *statement = std::move(*prepared);
    }
    return {};
  }

  StoreResult<ApplyOutcome> write(std::span<const Batch> batches, const Uuid& node) {
    roll_up_.clear();
    ApplyOutcome outcome;
    for (const Batch& batch : batches) {
      if (auto inserted = insert_events(batch, outcome); !inserted) return inserted.error();
    }
    if (auto added = add_usage(); !added) return added.error();
    if (auto added = add_agents(); !added) return added.error();
    if (auto added = add_runs(); !added) return added.error();
    if (auto added = add_periods(UuidText(node)); !added) return added.error();
    return outcome;
  }

 private:
  StoreResult<void> insert_events(const Batch& batch, ApplyOutcome& outcome) {
    const UuidText org(batch.org_id);
    const UuidText project(batch.project_id);
    for (std::uint32_t i = 0; i < batch.events.size(); ++i) {
      const Event& event = batch.events[i];
      auto is_new = insert_event(batch, org, project, event, UuidText(event_id(batch.id, i)));
      if (!is_new) return is_new.error();
      if (*is_new) {
        roll_up_.add(batch, event);
        ++outcome.stored;
      } else {
        ++outcome.duplicates;
      }
    }
    return {};
  }

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
        NullableText{event.prompt}, NullableText{event.partial ? kPartialMetadata : std::string_view{}});
    if (!inserted) return inserted.error();
    return *inserted != 0;
  }

  StoreResult<void> add_usage() {
    for (const auto& [key, sum] : roll_up_.minutes.sorted()) {
      auto added = add_minute_.run(UuidText(key.project_id), key.bucket_s, key.agent_name, key.provider,
                                   key.model, UuidText(sum.org_id), sum.events, sum.errors, sum.cost,
                                   sum.input_tokens, sum.output_tokens, sum.duration_ms, sum.timed_events);
      if (!added) return added.error();
    }
    for (const auto& [key, sum] : roll_up_.hours.sorted()) {
      auto added =
          add_hour_.run(UuidText(key.project_id), key.bucket_s, key.agent_name, key.provider, key.model,
                        UuidText(sum.org_id), sum.events, sum.errors, sum.cost, sum.error_cost,
                        sum.input_tokens, sum.output_tokens, kNoCachedTokens, kNoCachedTokens,
                        sum.duration_ms, sum.timed_events, sum.output_tokens_max, sum.last_event_us);
      if (!added) return added.error();
    }
    for (const auto& [key, sum] : roll_up_.dimensions.sorted()) {
      auto added = add_dimension_.run(UuidText(key.org_id), key.hour_s, key.agent_name, key.provider, kNoUser,
                                      kNoTagSet, sum.events, sum.cost, sum.input_tokens, sum.output_tokens);
      if (!added) return added.error();
    }
    for (const auto& [key, sum] : roll_up_.days.sorted()) {
      auto added =
          add_day_.run(key.day_s, UuidText(key.project_id), key.provider, key.model, UuidText(sum.org_id),
                       sum.events, sum.errors, sum.cost, saturating_add(sum.input_tokens, sum.output_tokens));
      if (!added) return added.error();
    }
    return {};
  }

  StoreResult<void> add_agents() {
    for (const auto& [key, sum] : roll_up_.agents.sorted()) {
      auto added = add_agent_.run(UuidText(key.org_id), key.text, sum.provider, sum.model, sum.first_event_us,
                                  sum.last_event_us, sum.events, sum.errors, sum.cost, sum.input_tokens,
                                  sum.output_tokens, sum.duration_ms, sum.last_received_us);
      if (!added) return added.error();
    }
    return {};
  }

  StoreResult<void> add_runs() {
    for (const auto& [key, sum] : roll_up_.runs.sorted()) {
      const UuidText org(key.org_id);
      auto models = merged_models(org, key.text, sum.models);
      if (!models) return models.error();
      auto added = add_run_.run(org, key.text, sum.agent_name, sum.first_event_us, sum.last_event_us,
                                sum.last_is_error, sum.events, sum.errors, sum.cost, sum.input_tokens,
                                sum.output_tokens, sum.duration_ms, std::string_view(*models));
      if (!added) return added.error();
    }
    return {};
  }

  StoreResult<void> add_periods(const UuidText& node) {
    for (const auto& [key, sum] : roll_up_.periods.sorted()) {
      auto added = add_period_.run(node, UuidText(key.org_id), key.period, key.number, sum.events, sum.cost,
                                   sum.input_tokens, sum.output_tokens, sum.duration_ms);
      if (!added) return added.error();
    }
    return {};
  }

  // Read and written in one transaction, which holds the write lock: nothing comes between.
  StoreResult<std::string> merged_models(const UuidText& org, std::string_view run_id,
                                         std::span<const std::string_view> models) {
    auto rows = select_run_models_.rows(org, run_id);
    auto found = rows.next();
    if (!found) return found.error();
    return merge_model_list(*found ? rows.text(0) : std::string_view{}, models);
  }

  // AgentKavach's events have no cached tokens, users and tags; the other systems' will.
  static constexpr std::int64_t kNoCachedTokens = 0;
  static constexpr std::string_view kNoUser = "";
  static constexpr std::int64_t kNoTagSet = 0;

  const std::int64_t dedup_window_us_;
  Statement insert_dedup_key_, insert_event_, select_run_models_;
  Statement add_minute_, add_hour_, add_dimension_, add_day_, add_agent_, add_run_, add_period_;
  RollUp roll_up_;  // kept for its memory
};

EventWriter::EventWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EventWriter::EventWriter(EventWriter&&) noexcept = default;
EventWriter& EventWriter::operator=(EventWriter&&) noexcept = default;
EventWriter::~EventWriter() = default;

StoreResult<EventWriter> EventWriter::create(Connection& connection, std::int64_t dedup_window_us) {
  auto impl = std::make_unique<Impl>(dedup_window_us);
  if (auto prepared = impl->prepare(connection); !prepared) return prepared.error();
  return EventWriter(std::move(impl));
}

StoreResult<ApplyOutcome> EventWriter::write(std::span<const Batch> batches, const Uuid& node) {
  return impl_->write(batches, node);
}

}  // namespace kavach::sink
