#include "http/ingest/answers.h"

#include <fmt/format.h>

#include <charconv>
#include <iterator>
#include <limits>

#include "engine/money.h"
#include "engine/timestamp.h"

namespace kavach::http {
namespace {

using quota::Reason;
using quota::Refusal;

void append_number(std::uint32_t number, std::string& out) {
  char digits[std::numeric_limits<std::uint32_t>::digits10 + 1];
  out.append(digits, std::to_chars(digits, digits + sizeof(digits), number).ptr);
}

// A decimal number as Python prints a float of that value: at least one digit behind the point.
void append_dollars(NanoDollars nano, std::string& out) {
  const std::string fraction = fmt::format("{:09}", nano % kNanoPerDollar);
  const std::size_t digits = fraction.find_last_not_of('0');
  fmt::format_to(std::back_inserter(out), "{}.{}", nano / kNanoPerDollar,
                 std::string_view(fraction).substr(0, digits == std::string::npos ? 1 : digits + 1));
}

// Times that clients read are whole seconds; the next one, so that nobody comes back too early.
std::string resume_text(WallMicros when) {
  const WallMicros up = when + kMicrosPerSecond - 1;
  return format_timestamp(up - up % kMicrosPerSecond);
}

void append_amount(const Refusal& refusal, std::int64_t amount, std::string& out) {
  if (refusal.budget_type == quota::BudgetType::kCost) return append_dollars(amount, out);
  fmt::format_to(std::back_inserter(out), "{}.0", amount);
}

}  // namespace

void render_accepted(std::uint32_t accepted, std::uint32_t rejected, std::string_view mode,
                     std::string_view rejected_agents, std::string& out) {
  // For every request: piece by piece costs a tenth of what a format string does.
  out.append(R"({"accepted":)");
  append_number(accepted, out);
  out.append(R"(,"rejected":)");
  append_number(rejected, out);
  out.append(R"(,"mode":")").append(mode).append(R"(","rejected_agents":)").append(rejected_agents) += '}';
}

void render_refusal(const Refusal& refusal, std::string_view rejected_agents, bool killed, std::string& out) {
  const auto to = std::back_inserter(out);
  switch (refusal.reason) {
    case Reason::kDailyLimit:
      fmt::format_to(
          to,
          R"({{"detail":"Daily event limit reached","reason":"daily_limit","limit":{},"used":{},"remaining":0,)"
          R"("resume_at":"{}","tier":"{}"}})",
          refusal.limit, refusal.used, resume_text(refusal.resume_at), refusal.tier);
      return;
    case Reason::kBurst:
      fmt::format_to(
          to,
          R"({{"detail":"Burst rate exceeded","reason":"burst","limit":{},"remaining":0,"resume_at":"{}"}})",
          refusal.limit, resume_text(refusal.resume_at));
      return;
    case Reason::kOrgBudget:
      fmt::format_to(to,
                     R"({{"detail":"Org budget exceeded","reason":"org_budget_exceeded","budget_type":"{}",)"
                     R"("period":"{}","limit_value":)",
                     name_of(refusal.budget_type), name_of(refusal.budget_period));
      append_amount(refusal, refusal.limit, out);
      out += R"(,"current_value":)";
      append_amount(refusal, refusal.used, out);
      // A budget without an end has no moment at which it is free again.
      if (refusal.resume_at == quota::kUnlimited) {
        out += R"(,"resume_at":null})";
      } else {
        fmt::format_to(to, R"(,"resume_at":"{}"}})", resume_text(refusal.resume_at));
      }
      return;
    case Reason::kAgentLimit:
      fmt::format_to(to,
                     R"({{"detail":"{}","reason":"tier_agent_limit","rejected_agents":{},"tier":"{}",)"
                     R"("max_agents":)",
                     killed ? "Agent was stopped" : "Agent limit reached for tier", rejected_agents,
                     refusal.tier);
      if (refusal.limit == quota::kUnlimited) {
        out += "null";
      } else {
        fmt::format_to(to, "{}", refusal.limit);
      }
      out += killed ? R"(,"killed":true})" : "}";
      return;
    case Reason::kNone:
    case Reason::kBackpressure:
      out += R"({"detail":"Server cannot take more events now, retry later","reason":"backpressure"})";
      return;
  }
}

void render_retry_after(std::int64_t seconds, std::string& out) {
  fmt::format_to(std::back_inserter(out), "Retry-After: {}\r\n", seconds);
}

void render_rate_limits(const quota::RateState& state, std::string& out) {
  const bool daily = state.daily_limit != quota::kUnlimited;
  const bool burst = state.burst_limit != quota::kUnlimited;
  if (!daily && !burst) return;
  const auto to = std::back_inserter(out);
  const std::string_view comma = daily && burst ? ", " : "";
  out += "RateLimit-Policy: ";
  if (daily) fmt::format_to(to, R"("daily";q={};w=86400)", state.daily_limit);
  out += comma;
  if (burst) fmt::format_to(to, R"("burst";q={};w=60)", state.burst_limit);
  out += "\r\nRateLimit: ";
  if (daily) fmt::format_to(to, R"("daily";r={};t={})", state.daily_left, state.daily_reset_s);
  out += comma;
  if (burst) fmt::format_to(to, R"("burst";r={};t={})", state.burst_left, state.burst_reset_s);
  out += "\r\n";
}

}  // namespace kavach::http
