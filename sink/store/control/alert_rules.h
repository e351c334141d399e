// Alert rules: which configured thresholds are crossed by what is used of the budgets, and the transaction
// in which one of them fires, once.
//
// A rule is an active alert configuration against each budget of its agent (or organization) and its budget
// type. It fires once in a period of the budget (a day, a month, for ever, a run), and not within five
// minutes of its last time. What has fired is remembered by what the rule says, not by its row: rows are
// replaced with every sync of the SDK. Rules: contract/agentkavach.md section 3.3.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sink/store/control/alert_configs.h"
#include "sink/store/control/budget_row.h"
#include "sink/store/control/control_store.h"
#include "sink/store/control/delivery_queue.h"
#include "sink/store/store.h"

namespace kavach::sink {

// How long a rule is silent after it fired.
inline constexpr std::int64_t kAlertCooldownUs = 5 * 60 * kMicrosPerSecond;

struct RunUse {
  std::string run_id, agent_name;
  BudgetUse use = {};
};

// A rule that is crossed.
struct CrossedRule {
  AlertConfig rule;        // of the organization: no agent
  BudgetRow budget;        // with what is used in the period
  std::string period_key;  // 2026-05-25, 2026-05, total, run:<id>
  WallMicros at = 0;       // when it was found
};

// The runs of these ids that are there.
StoreResult<std::vector<RunUse>> runs_by_id(ControlStore& store, std::string_view org_id,
                                            std::span<const std::string> ids);
// The newest of an agent with an event since `since`.
StoreResult<std::vector<RunUse>> recent_runs(ControlStore& store, std::string_view org_id,
                                             std::string_view agent_name, WallMicros since);
// Whether any agent has a budget for each run.
StoreResult<bool> has_run_budgets(ControlStore& store, std::string_view org_id);

struct CrossedRules {
  std::vector<CrossedRule> due = {};  // by threshold: the lowest fires first
  bool some_wait = false;             // another time: they fired less than kAlertCooldownUs ago
};
// `agent_name` empty: the organization's own rules. `runs`: those of the agent that may have crossed one.
StoreResult<CrossedRules> find_crossed_rules(ControlStore& store, std::string_view org_id,
                                             std::string_view agent_name, std::span<const RunUse> runs);

// What a rule that fires leaves behind.
struct Firing {
  std::string level;                 // WARN, ALERT, CRITICAL
  std::string message;               // of the alert event
  std::string error;                 // why nothing is sent to the rule's channel, if it should be
  std::optional<Delivery> delivery;  // to the rule's channel; absent: nothing is sent (kill, or an error)
  std::string announcement;          // for the topic of alerts; empty: none
  bool kills = false;                // marks the agent (or the organization's active agents) as killed
};
// The channel of announcements in the delivery queue.
inline constexpr std::string_view kAnnouncementChannel = "kafka";
// False: somebody else was faster, or it fired too short a time ago; nothing is changed then.
StoreResult<bool> fire(ControlStore& store, std::string_view org_id, const CrossedRule& crossed,
                       const Firing& firing);

// Agents with an active rule; an empty name is the organization itself.
struct Watched {
  std::string org_id, agent_name;
};
StoreResult<std::vector<Watched>> watched_agents(ControlStore& store);

// The address of the organization's owner; empty: it has none.
StoreResult<std::string> owner_address(ControlStore& store, std::string_view org_id);

}  // namespace kavach::sink
