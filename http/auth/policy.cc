#include "http/auth/policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/log.h"
#include "engine/money.h"

namespace kavach::http {
namespace {

const quota::Tier& tier_of(std::string_view name, const quota::TierTable& tiers) {
  static const quota::TierTable built_in = quota::TierTable::built_in();
  if (const quota::Tier* tier = tiers.find(name)) return *tier;
  if (const quota::Tier* free = tiers.find("free")) return *free;
  return *built_in.find("free");
}

std::int64_t limit_of(const sink::OwnLimit& own, const std::optional<std::int64_t>& of_tier) {
  if (own) return *own == sink::kNoLimit ? quota::kUnlimited : *own;
  return of_tier.value_or(quota::kUnlimited);
}

// 2^63 and more is no limit that could ever be reached.
std::int64_t saturated(double value) {
  return value >= 0x1p63 ? quota::kUnlimited : static_cast<std::int64_t>(value);
}

}  // namespace

quota::Policy limits_of(const sink::OrgRecord& org, const quota::TierTable& tiers) {
  const quota::Tier& tier = tier_of(org.tier, tiers);
  return {.org = org.id,
          .tier = org.tier,
          .events_per_day = limit_of(org.limits.events_per_day, tier.events_per_day),
          .burst_per_minute = limit_of(org.limits.burst_per_minute, tier.burst_per_minute),
          .agents_max = limit_of(org.limits.agents_max, tier.agents_max)};
}

std::optional<quota::Budget> budget_of(const sink::BudgetRecord& record) {
  const auto type = quota::budget_type_of(record.type);
  const auto period = quota::budget_period_of(record.period);
  if (!type || !period || !(record.limit > 0)) return std::nullopt;
  const std::int64_t limit = *type == quota::BudgetType::kCost
                                 ? saturated(std::round(record.limit * double{kNanoPerDollar}))
                                 : saturated(std::ceil(record.limit));
  // Less than half a nano-dollar is still something that may be spent up to.
  return quota::Budget{*type, *period, std::max<std::int64_t>(limit, 1)};
}

std::shared_ptr<const quota::PolicyTable> PolicyBuilder::build(const sink::Directory& directory,
                                                               const quota::TierTable& tiers) {
  std::vector<quota::Policy> policies;
  std::unordered_map<Uuid, std::size_t, UuidHash> index;
  policies.reserve(directory.orgs.size());
  index.reserve(directory.orgs.size());
  for (const sink::OrgRecord& org : directory.orgs) {
    if (org.deleted) continue;
    if (tiers.find(org.tier) == nullptr) {
      warn_once(fmt::format(
          "tier '{}' is not in the table of tiers ({}): its organizations have the limits of 'free'",
          org.tier, tiers.names()));
    }
    index.emplace(org.id, policies.size());
    policies.push_back(limits_of(org, tiers));
  }
  const auto policy_of = [&](const Uuid& org) {
    const auto found = index.find(org);
    return found == index.end() ? nullptr : &policies[found->second];
  };
  for (const sink::BudgetRecord& record : directory.budgets) {
    quota::Policy* const policy = policy_of(record.org_id);
    if (policy == nullptr) continue;
    if (const auto budget = budget_of(record)) {
      policy->budgets.push_back(*budget);
    } else {
      warn_once(fmt::format("budget {} of organization {} is left out: type '{}', period '{}', limit {}",
                            record.id, record.org_id.text(), record.type, record.period, record.limit));
    }
  }
  for (const sink::AgentName& agent : directory.killed_agents) {
    quota::Policy* const policy = policy_of(agent.org_id);
    if (policy == nullptr) continue;
    policy->killed_agents.push_back(quota::agent_fingerprint(agent.org_id, agent.name));
  }
  return std::make_shared<const quota::PolicyTable>(std::move(policies));
}

void PolicyBuilder::warn_once(std::string problem) {
  const auto [told, is_new] = told_.insert(std::move(problem));
  if (is_new) log::warning("policies: {}", *told);
}

}  // namespace kavach::http
