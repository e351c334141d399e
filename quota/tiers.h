// Tiers: what an organization's plan allows (contract/agentkavach.md 2.7), from a table that operators may
// change.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/result.h"

namespace kavach::quota {

// An absent number means unlimited.
struct Tier {
  std::string name;
  std::optional<std::int64_t> events_per_day;
  std::optional<std::int64_t> agents_max;
  std::optional<std::int64_t> burst_per_minute;
  std::int64_t retention_days = 30;
  double price_usd_monthly = 0;  // shown, and paid on the development path; Stripe has its own
};

// Immutable once built.
class TierTable {
 public:
  // free, pro and max as the contract has them.
  static TierTable built_in();
  // Reads `[name] events_per_day = …, max_agents = …, burst_per_minute = …, retention_days = …,
  // price_usd_monthly = …`; every
  // problem is reported with file, line and column. An empty path means built_in().
  static Result<TierTable> load(const std::string& path);

  const Tier* find(std::string_view name) const noexcept;
  const std::vector<Tier>& all() const noexcept { return tiers_; }
  // "free, max, pro": for error messages.
  std::string names() const;

 private:
  std::vector<Tier> tiers_;
};

}  // namespace kavach::quota
