#include "sink/store/rollup.h"

#include <functional>

#include "engine/calendar.h"

namespace kavach::sink {
namespace {

constexpr std::int64_t kDayS = 86'400;

void saturate(std::int64_t& sum, std::int64_t value) noexcept {
  sum = saturating_add(sum, value);
}

}  // namespace

std::size_t hash_of(const Uuid& id) noexcept {
  return id.random_half();
}

std::size_t hash_of(std::string_view text) noexcept {
  return std::hash<std::string_view>{}(text);
}

std::size_t hash_of(std::int64_t number) noexcept {
  return static_cast<std::size_t>(number) * 0xff51afd7ed558ccdULL;
}

std::int64_t bucket_start(WallMicros t, std::int64_t size_s) noexcept {
  const std::int64_t size_us = size_s * kMicrosPerSecond;
  const std::int64_t whole = t / size_us - (t % size_us < 0 ? 1 : 0);
  return whole * size_s;
}

void Usage::add(const Uuid& org, const Event& event) noexcept {
  org_id = org;
  events += 1;  // cannot overflow: it counts what is in memory
  if (event.is_error) {
    errors += 1;
    saturate(error_cost, event.cost);
  }
  saturate(cost, event.cost);
  saturate(input_tokens, event.input_tokens);
  saturate(output_tokens, event.output_tokens);
  output_tokens_max = std::max(output_tokens_max, event.output_tokens);
  saturate(duration_ms, event.duration_ms);
  if (event.duration_ms > 0) timed_events += 1;
  first_event_us = std::min(first_event_us, event.timestamp);
  last_event_us = std::max(last_event_us, event.timestamp);
}

void AgentUsage::add(const Batch& batch, const Event& event) noexcept {
  Usage::add(batch.org_id, event);
  last_received_us = std::max(last_received_us, batch.received_at);
  if (event.timestamp == last_event_us) {  // of two at the same moment, the one that was sent later
    provider = event.provider;
    model = event.model;
  }
}

void RunUsage::add(const Uuid& org, const Event& event) {
  const bool earliest = event.timestamp < first_event_us;
  Usage::add(org, event);
  if (earliest) agent_name = event.agent_name;
  if (event.timestamp == last_event_us) last_is_error = event.is_error;
  // From the back: the calls of a run mostly repeat its last model.
  if (std::find(models.rbegin(), models.rend(), event.model) == models.rend()) models.push_back(event.model);
}

void RollUp::add(const Batch& batch, const Event& event) {
  const std::int64_t hour_s = bucket_start(event.timestamp, kHourS);
  // Late is measured against the time of arrival, not against now: so a shipper that comes back after days
  // writes what it would have written then.
  if (batch.received_at - event.timestamp < kMinuteRowsUs) {
    const std::int64_t minute_s = bucket_start(event.timestamp, kMinuteS);
    minutes.at({batch.project_id, minute_s, event.agent_name, event.provider, event.model})
        .add(batch.org_id, event);
  }
  hours.at({batch.project_id, hour_s, event.agent_name, event.provider, event.model})
      .add(batch.org_id, event);
  dimensions.at({batch.org_id, hour_s, event.agent_name, event.provider}).add(batch.org_id, event);
  days.at({bucket_start(event.timestamp, kDayS), batch.project_id, event.provider, event.model})
      .add(batch.org_id, event);
  agents.at({batch.org_id, event.agent_name}).add(batch, event);
  if (!event.run_id.empty()) runs.at({batch.org_id, event.run_id}).add(batch.org_id, event);
  periods.at({batch.org_id, PeriodKey::kDaily, day_of(batch.received_at)}).add(batch.org_id, event);
  periods.at({batch.org_id, PeriodKey::kMonthly, month_of(batch.received_at)}).add(batch.org_id, event);
  periods.at({batch.org_id, PeriodKey::kTotal, 0}).add(batch.org_id, event);
}

void RollUp::clear() noexcept {
  minutes.clear();
  hours.clear();
  dimensions.clear();
  days.clear();
  agents.clear();
  runs.clear();
  periods.clear();
}

}  // namespace kavach::sink
