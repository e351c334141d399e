// The endpoints of the dashboard's charts and totals (contract/agentkavach.md section 7).
//
// Days are those of the organization's time zone: `today` is the day of now, 7d and 30d are the days that end
// with it. Nothing here reads single events.
#include <algorithm>
#include <optional>

#include "http/control/endpoint.h"
#include "http/control/percent.h"
#include "http/control/plan_limits.h"
#include "http/control/time_zone.h"
#include "sink/store/control/billing.h"
#include "sink/store/control/organization.h"
#include "sink/store/control/usage.h"

namespace kavach::http {
namespace {

using sink::RangeUsage;
using sink::TimeRange;
using sink::UsageSums;

// --- what they take and give -------------------------------------------------------------------------------

constexpr std::string_view kRanges[] = {"today", "7d", "30d", "custom"};
constexpr Field kRangeFields[] = {
    {.name = "range", .kind = FieldKind::kChoice, .choices = kRanges, .preset = R"("today")"},
    {.name = "from_date", .kind = FieldKind::kTimestamp, .help = "Of a custom range, which begins with it"},
    {.name = "to_date", .kind = FieldKind::kTimestamp, .help = "Of a custom range, which ends before it"}};
constexpr Schema kRangeQuery{"RangeQuery", kRangeFields};

constexpr Field number_of(std::string_view name, bool required = true, bool nullable = false) {
  return {.name = name, .kind = FieldKind::kNumber, .required = required, .nullable = nullable};
}
constexpr Field count_of(std::string_view name, bool required = true, bool nullable = false) {
  return {.name = name, .kind = FieldKind::kInteger, .required = required, .nullable = nullable};
}
constexpr Field moment_of(std::string_view name, bool required = true) {
  return {.name = name, .kind = FieldKind::kTimestamp, .required = required};
}

constexpr Field kOverviewFields[] = {number_of("total_spend_today"),
                                     number_of("total_spend_week"),
                                     number_of("total_spend_month"),
                                     count_of("events_today"),
                                     count_of("events_week"),
                                     count_of("events_month"),
                                     {.name = "tier", .required = true},
                                     count_of("active_agents_today"),
                                     count_of("active_agents_week"),
                                     count_of("active_agents_month"),
                                     count_of("events_per_day", true, true),
                                     count_of("max_agents", true, true),
                                     count_of("input_tokens_today"),
                                     count_of("output_tokens_today"),
                                     count_of("duration_ms_today"),
                                     number_of("org_budget_limit", true, true),
                                     number_of("org_budget_used", true, true),
                                     number_of("org_budget_pct", true, true),
                                     {.name = "org_budget_period", .required = true, .nullable = true},
                                     number_of("range_spend", false),
                                     count_of("range_events", false),
                                     count_of("range_input_tokens", false),
                                     count_of("range_output_tokens", false),
                                     count_of("range_duration_ms", false),
                                     moment_of("range_start", false),
                                     moment_of("range_end", false)};
constexpr Schema kOverview{"Overview", kOverviewFields};

constexpr std::string_view kGranularities[] = {"hourly", "daily"};
constexpr Field kSpendQueryFields[] = {
    {.name = "granularity", .kind = FieldKind::kChoice, .choices = kGranularities, .preset = R"("hourly")"},
    {.name = "days", .kind = FieldKind::kInteger, .at_least = 1, .at_most = 90, .preset = "7"}};
constexpr Schema kSpendQuery{"SpendQuery", kSpendQueryFields};
constexpr Field kPointFields[] = {moment_of("timestamp"), number_of("cost"), count_of("events"),
                                  count_of("input_tokens"), count_of("output_tokens")};
constexpr Schema kPoint{"SpendPoint", kPointFields};
constexpr Field kSpendFields[] = {
    {.name = "granularity", .required = true},
    count_of("days"),
    {.name = "timezone", .required = true},
    {.name = "series", .kind = FieldKind::kList, .required = true, .item = &kPoint},
    number_of("total_cost")};
constexpr Schema kSpend{"Spend", kSpendFields};

constexpr Field kTopModelFields[] = {{.name = "model", .required = true},
                                     {.name = "provider", .required = true},
                                     number_of("cost"),
                                     count_of("events"),
                                     count_of("input_tokens"),
                                     count_of("output_tokens"),
                                     number_of("pct")};
constexpr Schema kTopModel{"TopModel", kTopModelFields};
constexpr Field kTopAgentFields[] = {
    {.name = "agent_name", .required = true}, number_of("cost"), count_of("events"), number_of("pct")};
constexpr Schema kTopAgent{"TopAgent", kTopAgentFields};
constexpr Field kStatsFields[] = {
    {.name = "top_models", .kind = FieldKind::kList, .required = true, .item = &kTopModel},
    {.name = "top_agents", .kind = FieldKind::kList, .required = true, .item = &kTopAgent},
    {.name = "range", .required = true},
    moment_of("from"),
    moment_of("to"),
    number_of("total_cost"),
    count_of("error_count"),
    number_of("success_rate"),
    number_of("avg_duration_ms")};
constexpr Schema kStats{"Stats", kStatsFields};

constexpr std::int64_t kTopRows = 10;
constexpr int kWeekDays = 7;
constexpr int kMonthDays = 30;

// --- days and ranges ---------------------------------------------------------------------------------------

// The day of now, and the days before it.
TimeRange last_days(const Call& call, std::string_view zone, int days) {
  const WallMicros now = call.services.clock.wall();
  return {.from = day_start(zone, now, 1 - days), .to = day_start(zone, now, 1)};
}

// Why the query's range is none.
std::optional<Reply> refused_range(const Call& call) {
  const Form& query = call.query;
  if (query.text("range") != "custom") return std::nullopt;
  if (!query.has("from_date") || !query.has("to_date"))
    return refusal(422, "from_date and to_date are required when range=custom");
  if (query.timestamp("from_date") > query.timestamp("to_date"))
    return refusal(422, "from_date must not be after to_date");
  return std::nullopt;
}

// REQUIRES: it was not refused.
TimeRange range_of(const Call& call, std::string_view zone) {
  const std::string_view name = call.query.text("range");
  if (name == "custom")
    return {.from = call.query.timestamp("from_date"), .to = call.query.timestamp("to_date")};
  return last_days(call, zone, name == "today" ? 1 : name == "7d" ? kWeekDays : kMonthDays);
}

// What is counted of it: a day's edge splits no hour, but a custom one may.
TimeRange counted(const Call& call, TimeRange range) {
  return call.query.text("range") == "custom" ? sink::widened(call.store, range) : range;
}

// --- overview ----------------------------------------------------------------------------------------------

void show_budget(const std::vector<sink::BudgetRow>& budgets, JsonOut& out) {
  const sink::BudgetRow* most_used = nullptr;
  for (const sink::BudgetRow& budget : budgets) {
    if (budget.type != "cost") continue;
    if (most_used == nullptr || budget.used * most_used->limit > most_used->used * budget.limit)
      most_used = &budget;
  }
  if (most_used == nullptr) {
    out.null("org_budget_limit").null("org_budget_used").null("org_budget_pct").null("org_budget_period");
    return;
  }
  out.number("org_budget_limit", most_used->limit)
      .number("org_budget_used", most_used->used)
      .number("org_budget_pct", percent(most_used->used, most_used->limit))
      .text("org_budget_period", most_used->period);
}

Outcome show_overview(Call& call) {
  if (auto refused = refused_range(call)) return *refused;
  const std::string_view org_id = call.caller.org_id;
  auto settings = sink::org_settings(call.store, org_id);
  if (!settings) return settings.error();
  auto subscription = sink::subscription_of(call.store, org_id);
  if (!subscription) return subscription.error();
  auto budgets = sink::org_budgets(call.store, org_id);
  if (!budgets) return budgets.error();
  const std::string_view zone = known_zone(settings->timezone);
  // The shortest first: what is stored meanwhile cannot make a day more than its week.
  auto today = sink::usage_in(call.store, org_id, last_days(call, zone, 1));
  if (!today) return today.error();
  auto week = sink::usage_in(call.store, org_id, last_days(call, zone, kWeekDays));
  if (!week) return week.error();
  auto month = sink::usage_in(call.store, org_id, last_days(call, zone, kMonthDays));
  if (!month) return month.error();

  const auto tiers = call.services.tiers.get();
  const quota::Policy policy = plan_limits(*subscription, *tiers);
  JsonOut out;
  out.begin()
      .usd("total_spend_today", today->sums.cost)
      .usd("total_spend_week", week->sums.cost)
      .usd("total_spend_month", month->sums.cost)
      .integer("events_today", today->sums.events)
      .integer("events_week", week->sums.events)
      .integer("events_month", month->sums.events)
      .text("tier", subscription->tier)
      .integer("active_agents_today", today->active_agents)
      .integer("active_agents_week", week->active_agents)
      .integer("active_agents_month", month->active_agents);
  show_limit(out, "events_per_day", policy.events_per_day);
  show_limit(out, "max_agents", policy.agents_max);
  out.integer("input_tokens_today", today->sums.input_tokens)
      .integer("output_tokens_today", today->sums.output_tokens)
      .integer("duration_ms_today", today->sums.duration_ms);
  show_budget(*budgets, out);
  if (call.query.text("range") != "today") {
    const TimeRange range = range_of(call, zone);
    auto usage = sink::usage_in(call.store, org_id, counted(call, range));
    if (!usage) return usage.error();
    out.usd("range_spend", usage->sums.cost)
        .integer("range_events", usage->sums.events)
        .integer("range_input_tokens", usage->sums.input_tokens)
        .integer("range_output_tokens", usage->sums.output_tokens)
        .integer("range_duration_ms", usage->sums.duration_ms)
        .time("range_start", range.from)
        .time("range_end", range.to);
  }
  out.end();
  return Reply{.body = out.take()};
}

// --- spend -------------------------------------------------------------------------------------------------

// The hours up to the one of now, and its end.
std::vector<WallMicros> hour_edges(WallMicros now, int days) {
  const WallMicros end = now - now % kMicrosPerHour + kMicrosPerHour;
  std::vector<WallMicros> edges;
  for (int hours = 24 * days; hours >= 0; --hours) edges.push_back(end - hours * kMicrosPerHour);
  return edges;
}

// The midnights up to the one that ends the day of now.
std::vector<WallMicros> day_edges(std::string_view zone, WallMicros now, int days) {
  std::vector<WallMicros> edges;
  for (int day = 1 - days; day <= 1; ++day) edges.push_back(day_start(zone, now, day));
  return edges;
}

Outcome show_spend(Call& call) {
  auto settings = sink::org_settings(call.store, call.caller.org_id);
  if (!settings) return settings.error();
  const std::string_view granularity = call.query.text("granularity");
  const int days = static_cast<int>(call.query.integer("days"));
  const WallMicros now = call.services.clock.wall();
  const auto edges =
      granularity == "hourly" ? hour_edges(now, days) : day_edges(known_zone(settings->timezone), now, days);
  auto series = sink::usage_between(call.store, call.caller.org_id, edges);
  if (!series) return series.error();

  JsonOut out;
  out.begin()
      .text("granularity", granularity)
      .integer("days", days)
      .text("timezone", known_zone(settings->timezone));
  out.key("series").begin_list();
  UsageSums total;
  for (std::size_t i = 0; i < series->size(); ++i) {
    const UsageSums& sums = (*series)[i];
    total += sums;
    out.begin()
        .time("timestamp", edges[i])
        .usd("cost", sums.cost)
        .integer("events", sums.events)
        .integer("input_tokens", sums.input_tokens)
        .integer("output_tokens", sums.output_tokens)
        .end();
  }
  out.end_list().usd("total_cost", total.cost).end();
  return Reply{.body = out.take()};
}

// --- stats -------------------------------------------------------------------------------------------------

// Of the range's costs, in percent.
double share(const UsageSums& part, const UsageSums& whole) {
  return percent(static_cast<double>(part.cost), static_cast<double>(whole.cost));
}

double success_rate(const UsageSums& sums) {
  if (sums.events == 0) return 100;
  return percent(static_cast<double>(sums.events - sums.errors), static_cast<double>(sums.events), 2);
}

double average_duration_ms(const UsageSums& sums) {
  if (sums.timed_events == 0) return 0;
  return static_cast<double>(sums.duration_ms) / static_cast<double>(sums.timed_events);
}

Outcome show_stats(Call& call) {
  if (auto refused = refused_range(call)) return *refused;
  const std::string_view org_id = call.caller.org_id;
  auto settings = sink::org_settings(call.store, org_id);
  if (!settings) return settings.error();
  const TimeRange range = range_of(call, known_zone(settings->timezone));
  const TimeRange within = counted(call, range);
  auto models = sink::top_models(call.store, org_id, within, kTopRows);
  if (!models) return models.error();
  auto agents = sink::top_agents(call.store, org_id, within, kTopRows);
  if (!agents) return agents.error();
  // The whole last: what is stored meanwhile cannot make a part more than it.
  auto usage = sink::usage_in(call.store, org_id, within);
  if (!usage) return usage.error();
  const UsageSums& whole = usage->sums;

  JsonOut out;
  out.begin().key("top_models").begin_list();
  for (const sink::ModelUsage& model : *models) {
    out.begin()
        .text("model", model.model)
        .text("provider", model.provider)
        .usd("cost", model.sums.cost)
        .integer("events", model.sums.events)
        .integer("input_tokens", model.sums.input_tokens)
        .integer("output_tokens", model.sums.output_tokens)
        .number("pct", share(model.sums, whole))
        .end();
  }
  out.end_list().key("top_agents").begin_list();
  for (const sink::NamedUsage& agent : *agents) {
    out.begin()
        .text("agent_name", agent.name)
        .usd("cost", agent.sums.cost)
        .integer("events", agent.sums.events)
        .number("pct", share(agent.sums, whole))
        .end();
  }
  out.end_list()
      .text("range", call.query.text("range"))
      .time("from", range.from)
      .time("to", range.to)
      .usd("total_cost", whole.cost)
      .integer("error_count", whole.errors)
      .number("success_rate", success_rate(whole))
      .number("avg_duration_ms", average_duration_ms(whole))
      .end();
  return Reply{.body = out.take()};
}

// --- the table ---------------------------------------------------------------------------------------------

constexpr std::string_view kTag = "dashboard";
constexpr Endpoint kEndpoints[] = {
    {.method = Method::kGet,
     .path = "/v1/dashboard/overview",
     .tag = kTag,
     .summary = "Spend, events, active agents and limits",
     .access = Access::kMember,
     .query = &kRangeQuery,
     .reply = &kOverview,
     .run = show_overview},
    {.method = Method::kGet,
     .path = "/v1/dashboard/spend",
     .tag = kTag,
     .summary = "Spend by hour or day, up to now",
     .access = Access::kMember,
     .query = &kSpendQuery,
     .reply = &kSpend,
     .run = show_spend},
    {.method = Method::kGet,
     .path = "/v1/dashboard/stats",
     .tag = kTag,
     .summary = "The models and agents that cost most",
     .access = Access::kMember,
     .query = &kRangeQuery,
     .reply = &kStats,
     .run = show_stats},
};

}  // namespace

std::span<const Endpoint> dashboard_endpoints() {
  return kEndpoints;
}

}  // namespace kavach::http
