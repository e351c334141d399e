#include "sink/store/event_writer.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "sink/store/model_list.h"
#include "sink/store/rollup.h"
#include "sink/store/upsert.h"

namespace kavach::sink {
namespace {

constexpr std::string_view kUpdateRunModels = "UPDATE runs SET models = ?3 WHERE org_id = ?1 AND run_id = ?2";

constexpr std::string_view kAddRuns =
    "UPDATE agents SET total_runs = total_runs + ?3 WHERE org_id = ?1 AND name = ?2";

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
    {"models", Merge::kKeep}};
constexpr UpsertColumn kPeriodColumns[] = {
    {"node", Merge::kKey},         {"org_id", Merge::kKey},        {"period", Merge::kKey},
    {"number", Merge::kKey},       {"events", Merge::kSum},        {"cost_nano", Merge::kSum},
    {"input_tokens", Merge::kSum}, {"output_tokens", Merge::kSum}, {"duration_ms", Merge::kSum}};

}  // namespace

class EventWriter::Impl {
 public:
  Impl(Connection& connection, std::unique_ptr<EventRows> rows)
      : connection_(connection), rows_(std::move(rows)) {}

  StoreResult<void> prepare() {
    const std::pair<Statement*, std::string> statements[] = {
        {&update_run_models_, std::string(kUpdateRunModels)},
        {&count_runs_, std::string(kAddRuns)},
        {&add_minute_, upsert_sql({"usage_minute"}, kMinuteColumns)},
        {&add_hour_, upsert_sql({"usage_hourly"}, kHourColumns)},
        {&add_dimension_, upsert_sql({"usage_hourly_dim"}, kDimensionColumns)},
        {&add_day_, upsert_sql({"usage_daily_platform"}, kDayColumns)},
        {&add_agent_, upsert_sql({"agents", "first_seen_us", "last_event_us"}, kAgentColumns)},
        {&add_run_,
         upsert_sql({"runs", "first_event_us", "last_event_us"}, kRunColumns) + " RETURNING models"},
        {&add_period_, upsert_sql({"node_usage"}, kPeriodColumns)},
    };
    return connection_.prepare_all(statements);
  }

  StoreResult<void> make_room(std::span<const Batch> batches, WallMicros now) {
    return rows_->make_room(batches, now);
  }
  StoreResult<void> drop_old(WallMicros now) { return rows_->drop_old(now); }

  StoreResult<ApplyOutcome> write(std::span<const Batch> batches, const Uuid& node) {
    roll_up_.clear();
    ApplyOutcome outcome;
    auto inserted = rows_->insert(batches, [&](const Batch& batch, const Event& event) {
      roll_up_.add(batch, event);
      ++outcome.stored;
    });
    if (!inserted) return inserted.error();
    for (const Batch& batch : batches) outcome.duplicates += batch.events.size();
    outcome.duplicates -= outcome.stored;
    if (auto added = add_usage(); !added) return added.error();
    if (auto added = add_agents(); !added) return added.error();
    if (auto added = add_runs(); !added) return added.error();
    if (auto added = add_periods(UuidText(node)); !added) return added.error();
    if (auto settled = connection_.settle(); !settled) return settled.error();
    return outcome;
  }

  void tell(const UsageListener& listener) const {
    const auto names_of = [](const auto& rows) {
      std::vector<UsedName> names;
      names.reserve(rows.size());
      for (const auto& row : rows) names.push_back({row.key.org_id, row.key.text});
      return names;
    };
    listener(names_of(roll_up_.agents.rows()), names_of(roll_up_.runs.rows()));
  }

 private:
  StoreResult<void> add_usage() {
    for (const auto& [key, sum] : roll_up_.minutes.sorted()) {
      auto added = add_minute_.queue(UuidText(key.project_id), key.bucket_s, key.agent_name, key.provider,
                                     key.model, UuidText(sum.org_id), sum.events, sum.errors, sum.cost,
                                     sum.input_tokens, sum.output_tokens, sum.duration_ms, sum.timed_events);
      if (!added) return added.error();
    }
    for (const auto& [key, sum] : roll_up_.hours.sorted()) {
      auto added =
          add_hour_.queue(UuidText(key.project_id), key.bucket_s, key.agent_name, key.provider, key.model,
                          UuidText(sum.org_id), sum.events, sum.errors, sum.cost, sum.error_cost,
                          sum.input_tokens, sum.output_tokens, kNoCachedTokens, kNoCachedTokens,
                          sum.duration_ms, sum.timed_events, sum.output_tokens_max, sum.last_event_us);
      if (!added) return added.error();
    }
    for (const auto& [key, sum] : roll_up_.dimensions.sorted()) {
      auto added =
          add_dimension_.queue(UuidText(key.org_id), key.hour_s, key.agent_name, key.provider, kNoUser,
                               kNoTagSet, sum.events, sum.cost, sum.input_tokens, sum.output_tokens);
      if (!added) return added.error();
    }
    for (const auto& [key, sum] : roll_up_.days.sorted()) {
      auto added = add_day_.queue(key.day_s, UuidText(key.project_id), key.provider, key.model,
                                  UuidText(sum.org_id), sum.events, sum.errors, sum.cost,
                                  saturating_add(sum.input_tokens, sum.output_tokens));
      if (!added) return added.error();
    }
    return {};
  }

  StoreResult<void> add_agents() {
    for (const auto& [key, sum] : roll_up_.agents.sorted()) {
      auto added =
          add_agent_.queue(UuidText(key.org_id), key.text, sum.provider, sum.model, sum.first_event_us,
                           sum.last_event_us, sum.events, sum.errors, sum.cost, sum.input_tokens,
                           sum.output_tokens, sum.duration_ms, sum.last_received_us);
      if (!added) return added.error();
    }
    return {};
  }

  // The upsert leaves the models of a run that is there as they are, and locks its row: whoever else has a
  // part of the same run comes before or behind. New ones are counted for their agents, whose rows
  // add_agents() has locked.
  StoreResult<void> add_runs() {
    const auto& runs = roll_up_.runs.sorted();
    models_.assign(runs.size(), {});
    for (std::size_t i = 0; i < runs.size(); ++i) {
      const auto& [key, sum] = runs[i];
      auto added =
          add_run_.queue_into(models_[i], UuidText(key.org_id), key.text, sum.agent_name, sum.first_event_us,
                              sum.last_event_us, sum.last_is_error, sum.events, sum.errors, sum.cost,
                              sum.input_tokens, sum.output_tokens, sum.duration_ms, kNoModels);
      if (!added) return added.error();
    }
    if (auto settled = connection_.settle(); !settled) return settled.error();
    std::map<std::pair<Uuid, std::string_view>, std::int64_t> new_runs;
    for (std::size_t i = 0; i < runs.size(); ++i) {
      const auto& [key, sum] = runs[i];
      if (models_[i] == kNoModels) ++new_runs[{key.org_id, sum.agent_name}];
      const std::string merged = merge_model_list(models_[i], sum.models);
      if (merged == models_[i]) continue;
      auto updated = update_run_models_.queue(UuidText(key.org_id), key.text, std::string_view(merged));
      if (!updated) return updated.error();
    }
    for (const auto& [agent, count] : new_runs) {
      auto counted = count_runs_.queue(UuidText(agent.first), agent.second, count);
      if (!counted) return counted.error();
    }
    return {};
  }

  StoreResult<void> add_periods(const UuidText& node) {
    for (const auto& [key, sum] : roll_up_.periods.sorted()) {
      auto added = add_period_.queue(node, UuidText(key.org_id), key.period, key.number, sum.events, sum.cost,
                                     sum.input_tokens, sum.output_tokens, sum.duration_ms);
      if (!added) return added.error();
    }
    return {};
  }

  // AgentKavach's events have no cached tokens, users and tags; the other systems' will.
  static constexpr std::int64_t kNoCachedTokens = 0;
  static constexpr std::string_view kNoUser = "";
  static constexpr std::int64_t kNoTagSet = 0;
  static constexpr std::string_view kNoModels = "[]";

  Connection& connection_;
  std::unique_ptr<EventRows> rows_;
  Statement update_run_models_, count_runs_;
  Statement add_minute_, add_hour_, add_dimension_, add_day_, add_agent_, add_run_, add_period_;
  // Kept for their memory.
  RollUp roll_up_;
  std::vector<std::string> models_;  // what each run's row had
};

EventWriter::EventWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EventWriter::EventWriter(EventWriter&&) noexcept = default;
EventWriter& EventWriter::operator=(EventWriter&&) noexcept = default;
EventWriter::~EventWriter() = default;

StoreResult<EventWriter> EventWriter::create(Connection& connection, std::unique_ptr<EventRows> rows) {
  auto impl = std::make_unique<Impl>(connection, std::move(rows));
  if (auto prepared = impl->prepare(); !prepared) return prepared.error();
  return EventWriter(std::move(impl));
}

StoreResult<void> EventWriter::make_room(std::span<const Batch> batches, WallMicros now) {
  return impl_->make_room(batches, now);
}

StoreResult<void> EventWriter::drop_old(WallMicros now) {
  return impl_->drop_old(now);
}

StoreResult<ApplyOutcome> EventWriter::write(std::span<const Batch> batches, const Uuid& node) {
  return impl_->write(batches, node);
}

void EventWriter::tell(const UsageListener& listener) const {
  impl_->tell(listener);
}

}  // namespace kavach::sink
