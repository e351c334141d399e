// What an alert says, in the words of each channel.
//
// Words, numbers and layouts are those of the SDK's templates, which delivered alerts by itself before: who
// receives them sees no difference. Names come from users: whatever one holds, the message keeps its form,
// and where a channel takes only so much, the name is cut and what was crossed stays. Pure functions; any
// thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "engine/clock.h"
#include "http/outbound/http_client.h"
#include "http/outbound/mime.h"

namespace kavach::http {

// What a rule saw when it fired.
struct Breach {
  std::string org_name;     // may be empty
  std::string agent_name;   // empty: the whole organization
  std::string budget_type;  // cost, tokens_total, tokens_input, tokens_output, calls, duration, loops
  std::string period;       // daily, monthly, total, per_run
  double threshold = 0;     // a fraction
  double limit = 0;         // dollars, tokens, calls, milliseconds, loops
  double used = 0;          // in the unit of the limit
  WallMicros fired_at = 0;
  WallMicros resets_at = 0;  // 0: never
};

// WARN, ALERT or CRITICAL.
std::string_view alert_level(double threshold) noexcept;
// A line for the list of alerts.
std::string alert_summary(const Breach& breach);
// `dashboard_url`: what stands before /dashboard.
std::string slack_json(const Breach& breach, std::string_view dashboard_url);
// Without a routing key, so that what is stored holds none.
std::string pagerduty_json(const Breach& breach);
// REQUIRES: a body of pagerduty_json().
std::string with_routing_key(std::string_view body, std::string_view routing_key);
// Keys sorted, no spaces.
std::string webhook_json(const Breach& breach);
// For the topic of alerts: a summary with the numbers as they are.
std::string announcement_json(const Breach& breach, std::string_view org_id, std::string_view channel,
                              std::string_view period_key);
// X-AgentKavach-Signature, of the body alone, and X-AgentKavach-Timestamp.
std::array<HttpHeader, 2> webhook_signature(std::string_view secret, std::int64_t unix_seconds,
                                            std::string_view body);
// Its id and its receiver are left to the caller.
Mail alert_mail(const Breach& breach, std::string_view dashboard_url);

}  // namespace kavach::http
