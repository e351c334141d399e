// BudgetRow: a budget of an organization or of one of its agents, with what is used of it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/clock.h"
#include "engine/money.h"

namespace kavach::sink {

struct BudgetRow {
  std::string id, agent_name;  // no agent: the organization's own
  std::string type, period, unit, source;
  double limit = 0;
  double used = 0;  // in the unit of the limit, in the period (UTC) that runs
  WallMicros created_at = 0, updated_at = 0;
};

// What budgets are measured by.
struct BudgetUse {
  std::int64_t events = 0, cost = 0, input_tokens = 0, output_tokens = 0, duration_ms = 0;

  // In the unit of a budget of `type`.
  double of(std::string_view type) const noexcept {
    if (type == "cost") return static_cast<double>(cost) / static_cast<double>(kNanoPerDollar);
    return static_cast<double>(type == "tokens_total"    ? saturating_add(input_tokens, output_tokens)
                               : type == "tokens_input"  ? input_tokens
                               : type == "tokens_output" ? output_tokens
                               : type == "calls"         ? events
                               : type == "duration"      ? duration_ms
                                                         : 0);  // loops are counted by the SDK alone
  }
};

}  // namespace kavach::sink
