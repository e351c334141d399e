// Policies: what the store says of organizations (sink/store) in the terms of admission (quota/limits.h).
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>

#include "quota/limits.h"
#include "quota/tiers.h"
#include "sink/store/store.h"

namespace kavach::http {

// The limits of the organization's tier, replaced by its own where it has some; without budgets and agents.
// A tier that the table lacks has the limits of `free`.
quota::Policy limits_of(const sink::OrgRecord& org, const quota::TierTable& tiers);

// Nano-dollars for cost, whole units rounded up for the rest: `used >= limit` says the same of both limits.
// nullopt when it is no budget of an organization (another type or period, not above 0).
std::optional<quota::Budget> budget_of(const sink::BudgetRecord& record);

// Builds the table of all policies, and says once what is wrong with a tier or a budget. One thread.
class PolicyBuilder {
 public:
  std::shared_ptr<const quota::PolicyTable> build(const sink::Directory& directory,
                                                  const quota::TierTable& tiers);

 private:
  void warn_once(std::string problem);

  std::set<std::string> told_;
};

}  // namespace kavach::http
