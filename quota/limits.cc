#include "quota/limits.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>

#include "engine/calendar.h"
#include "engine/money.h"

namespace kavach::quota {
namespace {

constexpr std::array<std::string_view, 6> kTypeNames{"cost",          "tokens_total", "tokens_input",
                                                     "tokens_output", "calls",        "duration"};
constexpr std::array<std::string_view, kBudgetPeriods> kPeriodNames{"daily", "monthly", "total"};

template <typename Enum, std::size_t kCount>
std::optional<Enum> value_of(const std::array<std::string_view, kCount>& names,
                             std::string_view name) noexcept {
  const auto* const found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) return std::nullopt;
  return static_cast<Enum>(found - names.begin());
}

}  // namespace

std::int64_t amount_of(BudgetType type, const Usage& usage) noexcept {
  switch (type) {
    case BudgetType::kCost:
      return usage.cost;
    case BudgetType::kTokensTotal:
      return saturating_add(usage.input_tokens, usage.output_tokens);
    case BudgetType::kTokensInput:
      return usage.input_tokens;
    case BudgetType::kTokensOutput:
      return usage.output_tokens;
    case BudgetType::kCalls:
      return usage.events;
    case BudgetType::kDuration:
      return usage.duration_ms;
  }
  return 0;
}

std::string_view name_of(BudgetType type) noexcept {
  return kTypeNames[static_cast<std::size_t>(type)];
}
std::string_view name_of(BudgetPeriod period) noexcept {
  return kPeriodNames[static_cast<std::size_t>(period)];
}
std::optional<BudgetType> budget_type_of(std::string_view name) noexcept {
  return value_of<BudgetType>(kTypeNames, name);
}
std::optional<BudgetPeriod> budget_period_of(std::string_view name) noexcept {
  return value_of<BudgetPeriod>(kPeriodNames, name);
}

std::int64_t period_number(BudgetPeriod period, WallMicros now) noexcept {
  switch (period) {
    case BudgetPeriod::kDaily:
      return day_of(now);
    case BudgetPeriod::kMonthly:
      return month_of(now);
    case BudgetPeriod::kTotal:
      return 0;
  }
  return 0;
}

WallMicros period_end(BudgetPeriod period, WallMicros now) noexcept {
  switch (period) {
    case BudgetPeriod::kDaily:
      return start_of_day(day_of(now) + 1);
    case BudgetPeriod::kMonthly:
      return start_of_month(month_of(now) + 1);
    case BudgetPeriod::kTotal:
      return kUnlimited;
  }
  return kUnlimited;
}

std::uint64_t agent_fingerprint(const Uuid& org, std::string_view name) noexcept {
  return XXH3_64bits_withSeed(name.data(), name.size(), org.random_half());
}

bool Policy::is_killed(std::uint64_t fingerprint) const noexcept {
  return std::binary_search(killed_agents.begin(), killed_agents.end(), fingerprint);
}

PolicyTable::PolicyTable(std::vector<Policy> policies) : policies_(std::move(policies)) {
  std::sort(policies_.begin(), policies_.end(),
            [](const Policy& a, const Policy& b) { return a.org < b.org; });
  for (Policy& policy : policies_) std::sort(policy.killed_agents.begin(), policy.killed_agents.end());
}

const Policy* PolicyTable::find(const Uuid& org) const noexcept {
  const auto found = std::lower_bound(policies_.begin(), policies_.end(), org,
                                      [](const Policy& policy, const Uuid& id) { return policy.org < id; });
  return found != policies_.end() && found->org == org ? &*found : nullptr;
}

}  // namespace kavach::quota
