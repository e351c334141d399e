// The limits of an organization's plan, as the dashboard and billing show them.
#pragma once

#include <cstdint>
#include <string_view>

#include "http/control/json_out.h"
#include "quota/limits.h"
#include "quota/tiers.h"
#include "sink/store/control/billing.h"

namespace kavach::http {

// What admission applies; without budgets and agents.
quota::Policy plan_limits(const sink::SubscriptionRow& subscription, const quota::TierTable& tiers);

// A member; null: unlimited.
void show_limit(JsonOut& out, std::string_view name, std::int64_t limit);

}  // namespace kavach::http
