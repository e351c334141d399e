// Agents: what an organization's agents have used, their budgets, and the switch that kills them.
//
// Read from agents, usage_hourly and usage_minute; no event is looked at.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sink/store/control/budget_row.h"
#include "sink/store/control/control_store.h"

namespace kavach::sink {

// Periods of usage: each [start, end); the first three go up to now.
struct AgentWindows {
  WallMicros today = 0, week = 0, month = 0;
  WallMicros range_start = 0, range_end = 0;
};

struct AgentRow {
  std::string name, provider, model;  // of the latest event; empty: it has sent none
  std::int64_t events = 0, errors = 0, cost = 0, input_tokens = 0, output_tokens = 0, duration_ms = 0;
  std::optional<WallMicros> last_event = {}, last_received = {}, killed_at = {}, rejected_at = {};
  // Within the windows; costs in nano-dollars.
  std::int64_t cost_today = 0, cost_week = 0, cost_month = 0;
  std::int64_t input_tokens_today = 0, output_tokens_today = 0;
  std::int64_t range_events = 0, range_cost = 0;
  bool has_kill_switch = false;
  // Its cost budget: the daily one, or the monthly, or the total one.
  std::optional<double> budget_limit = {};
  double budget_used = 0;
};
// Dearest of the month first. `only`: the one of that name.
StoreResult<std::vector<AgentRow>> agents_of(ControlStore& store, std::string_view org_id,
                                             const AgentWindows& windows,
                                             std::optional<std::string_view> only = {});
StoreResult<bool> has_agent(ControlStore& store, std::string_view org_id, std::string_view name);
// The prefix of its newest active key; empty: none.
StoreResult<std::string> newest_key_prefix(ControlStore& store, std::string_view org_id);

struct ModelUse {
  std::string model, provider;
  std::int64_t events = 0, cost = 0, input_tokens = 0, output_tokens = 0;
};
struct DayUse {
  std::int64_t events = 0, cost = 0;
};
struct AgentDetail {
  std::vector<ModelUse> models;                    // since `month`, dearest first
  std::vector<DayUse> days;                        // from days[i] to days[i + 1] of the question
  std::int64_t duration_ms = 0, timed_events = 0;  // since `month`
};
// `days`: where days begin, and where the last one ends.
StoreResult<AgentDetail> agent_detail(ControlStore& store, std::string_view org_id, std::string_view name,
                                      WallMicros month, const std::vector<WallMicros>& days);

StoreResult<std::vector<BudgetRow>> agent_budgets(ControlStore& store, std::string_view org_id,
                                                  std::string_view name);
// One of a type and period takes the place of the one before it. Empty: there is no such agent.
StoreResult<std::optional<BudgetRow>> put_agent_budget(ControlStore& store, std::string_view org_id,
                                                       std::string_view name, std::string_view type,
                                                       std::string_view period, double limit,
                                                       std::string_view unit);

struct Kill {
  WallMicros killed_at = 0;
  std::string alert_id;  // of the alert event that says so
  bool is_new = false;
};
// Idempotent. Empty: there is no such agent.
StoreResult<std::optional<Kill>> kill_agent(ControlStore& store, std::string_view org_id,
                                            std::string_view name);
// Those with an event in the last 24 hours; their names, sorted.
StoreResult<std::vector<std::string>> kill_active_agents(ControlStore& store, std::string_view org_id);
// False: there is no such agent.
StoreResult<bool> reactivate_agent(ControlStore& store, std::string_view org_id, std::string_view name);

}  // namespace kavach::sink
