#include "http/control/plan_limits.h"

#include "http/auth/policy.h"

namespace kavach::http {

quota::Policy plan_limits(const sink::SubscriptionRow& subscription, const quota::TierTable& tiers) {
  return limits_of({.id = {},
                    .project_id = {},
                    .name = {},
                    .tier = subscription.tier,
                    .subscription_status = {},
                    .limits = subscription.limits},
                   tiers);
}

void show_limit(JsonOut& out, std::string_view name, std::int64_t limit) {
  limit == quota::kUnlimited ? out.null(name) : out.integer(name, limit);
}

}  // namespace kavach::http
