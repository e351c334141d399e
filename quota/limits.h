// Limits: what one organization may do, and what it has used.
//
// A Policy is read from the store (tier, the organization's own overrides, budgets, killed agents) and handed
// to the organization's home shard; it is immutable. Which limits there are and what each does:
// quota/DESIGN.md.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/clock.h"
#include "engine/event.h"
#include "engine/ids.h"
#include "engine/money.h"

namespace kavach::quota {

inline constexpr std::int64_t kUnlimited = std::numeric_limits<std::int64_t>::max();

// What an event adds to an organization's use. Money in nano-dollars, durations in milliseconds. Sums
// saturate.
struct Usage {
  std::int64_t events = 0;
  std::int64_t cost = 0;
  std::int64_t input_tokens = 0;
  std::int64_t output_tokens = 0;
  std::int64_t duration_ms = 0;

  // Here, since it is done for every event.
  Usage& operator+=(const Usage& other) noexcept {
    events = saturating_add(events, other.events);
    cost = saturating_add(cost, other.cost);
    input_tokens = saturating_add(input_tokens, other.input_tokens);
    output_tokens = saturating_add(output_tokens, other.output_tokens);
    duration_ms = saturating_add(duration_ms, other.duration_ms);
    return *this;
  }
  friend bool operator==(const Usage&, const Usage&) = default;
};

inline Usage usage_of(const Event& event) noexcept {
  return {.events = 1,
          .cost = event.cost,
          .input_tokens = event.input_tokens,
          .output_tokens = event.output_tokens,
          .duration_ms = event.duration_ms};
}

enum class BudgetType : std::uint8_t { kCost, kTokensTotal, kTokensInput, kTokensOutput, kCalls, kDuration };
// All periods are UTC.
enum class BudgetPeriod : std::uint8_t { kDaily, kMonthly, kTotal };
inline constexpr std::size_t kBudgetPeriods = 3;

// A budget of the whole organization. `limit` in the unit of its type: nano-dollars, tokens, calls or ms.
struct Budget {
  BudgetType type = BudgetType::kCost;
  BudgetPeriod period = BudgetPeriod::kDaily;
  std::int64_t limit = 0;
};

// How much of a budget's unit is in `usage`.
std::int64_t amount_of(BudgetType type, const Usage& usage) noexcept;
// "cost", "daily": as the contract spells them; nullopt for any other word.
std::string_view name_of(BudgetType type) noexcept;
std::string_view name_of(BudgetPeriod period) noexcept;
std::optional<BudgetType> budget_type_of(std::string_view name) noexcept;
std::optional<BudgetPeriod> budget_period_of(std::string_view name) noexcept;

// Where a period that contains `now` ends; kUnlimited for kTotal.
WallMicros period_end(BudgetPeriod period, WallMicros now) noexcept;
// A number that is the same for all moments of one period and differs between periods: days since 1970,
// months since 1970, 0.
std::int64_t period_number(BudgetPeriod period, WallMicros now) noexcept;

// A limit is enforced, or in `shadow`: evaluated and counted, but nothing is refused.
enum class LimitMode : std::uint8_t { kEnforce, kShadow };
struct LimitModes {
  LimitMode daily = LimitMode::kEnforce;
  LimitMode burst = LimitMode::kEnforce;
  LimitMode agents = LimitMode::kEnforce;
  LimitMode budgets = LimitMode::kEnforce;
};

// Names are compared by fingerprint on the data path.
std::uint64_t agent_fingerprint(const Uuid& org, std::string_view name) noexcept;

struct Policy {
  Uuid org = {};
  std::string tier = {};
  std::int64_t events_per_day = kUnlimited;
  std::int64_t burst_per_minute = kUnlimited;
  std::int64_t agents_max = kUnlimited;
  std::vector<Budget> budgets = {};
  std::vector<std::uint64_t> killed_agents = {};  // fingerprints, ascending

  bool is_killed(std::uint64_t fingerprint) const noexcept;
};

// The policies of all organizations, as of one version of the directory. Immutable, shared by all shards.
class PolicyTable {
 public:
  explicit PolicyTable(std::vector<Policy> policies);
  // Null when the organization is not known.
  const Policy* find(const Uuid& org) const noexcept;
  std::size_t size() const noexcept { return policies_.size(); }

 private:
  std::vector<Policy> policies_;  // by org, ascending
};

}  // namespace kavach::quota
