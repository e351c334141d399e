// Shapes: the JSON of what several resources answer with (contract/agentkavach.md section 6): budgets and
// events.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "http/control/endpoint.h"
#include "http/control/json_out.h"
#include "http/control/schema.h"
#include "sink/store/control/budget_row.h"
#include "sink/store/control/event_list.h"

namespace kavach::http {

// The words of budgets and alerts. Loops and single runs are no matter of an organization's budgets.
inline constexpr std::string_view kBudgetTypes[] = {"cost",  "tokens_total", "tokens_input", "tokens_output",
                                                    "calls", "duration",     "loops"};
inline constexpr std::span<const std::string_view> kOrgBudgetTypes = std::span(kBudgetTypes).first(6);
inline constexpr std::string_view kBudgetPeriods[] = {"daily", "monthly", "total", "per_run"};
inline constexpr std::span<const std::string_view> kOrgBudgetPeriods = std::span(kBudgetPeriods).first(3);
inline constexpr std::string_view kAlertChannels[] = {"email", "slack", "pagerduty", "webhook", "kill"};
inline constexpr std::string_view kAlertPrefix = "alert_";  // of ids

extern const Schema kBudget;
extern const Schema kBudgetList;
extern const Schema kEvent;

// What a budget of this type is measured in.
std::string_view unit_of(std::string_view budget_type);
// An id as a path has it: with the prefix of budgets or without.
std::string_view budget_id(std::string_view id);
void render(const sink::BudgetRow& budget, JsonOut& out);
Reply budgets_reply(std::span<const sink::BudgetRow> budgets);

// A member "events".
void render_events(const sink::EventPage& page, JsonOut& out);

}  // namespace kavach::http
