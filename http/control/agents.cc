// The endpoints of agents: what each has used, its events and budgets, and the switch that stops it
// (contract/agentkavach.md section 6).
#include <algorithm>
#include <limits>

#include "engine/calendar.h"
#include "http/control/endpoint.h"
#include "http/control/percent.h"
#include "http/control/shapes.h"
#include "http/control/time_zone.h"
#include "sink/store/control/agents.h"
#include "sink/store/control/organization.h"
#include "sink/store/rollup.h"

namespace kavach::http {
namespace {

using sink::AgentRow;

constexpr int kWeekDays = 7;
constexpr int kMonthDays = 30;
constexpr WallMicros kForEver = std::numeric_limits<WallMicros>::max();

// --- shapes ------------------------------------------------------------------------------------------------

#define KAVACH_AGENT_FIELDS                                                                           \
  {.name = "agent_name", .required = true}, {.name = "provider", .required = true, .nullable = true}, \
      {.name = "model", .required = true, .nullable = true},                                          \
      {.name = "total_events", .kind = FieldKind::kInteger, .required = true},                        \
      {.name = "total_cost", .kind = FieldKind::kNumber, .required = true},                           \
      {.name = "cost_today", .kind = FieldKind::kNumber, .required = true},                           \
      {.name = "cost_week", .kind = FieldKind::kNumber, .required = true},                            \
      {.name = "cost_month", .kind = FieldKind::kNumber, .required = true},                           \
      {.name = "input_tokens_today", .kind = FieldKind::kInteger, .required = true},                  \
      {.name = "output_tokens_today", .kind = FieldKind::kInteger, .required = true},                 \
      {.name = "total_input_tokens", .kind = FieldKind::kInteger, .required = true},                  \
      {.name = "total_output_tokens", .kind = FieldKind::kInteger, .required = true},                 \
      {.name = "total_duration_ms", .kind = FieldKind::kInteger, .required = true},                   \
      {.name = "range_events", .kind = FieldKind::kInteger, .required = true},                        \
      {.name = "range_cost", .kind = FieldKind::kNumber, .required = true},                           \
      {.name = "budget_limit_usd", .kind = FieldKind::kNumber, .required = true, .nullable = true},   \
      {.name = "budget_used_pct", .kind = FieldKind::kNumber, .required = true},                      \
      {.name = "status", .required = true, .help = "active, inactive, rejected or killed"},           \
      {.name = "has_kill_switch", .kind = FieldKind::kFlag, .required = true}, {                      \
    .name = "last_active", .kind = FieldKind::kTimestamp, .required = true, .nullable = true          \
  }
constexpr Field kAgentFields[] = {KAVACH_AGENT_FIELDS};
constexpr Schema kAgent{"Agent", kAgentFields};
constexpr Field kAgentsFields[] = {
    {.name = "agents", .kind = FieldKind::kList, .required = true, .item = &kAgent},
    {.name = "total", .kind = FieldKind::kInteger, .required = true},
    {.name = "api_key_prefix", .required = true, .nullable = true},
    {.name = "tier", .required = true},
    {.name = "timezone", .required = true},
    {.name = "rejected_agents", .kind = FieldKind::kTexts, .required = true}};
constexpr Schema kAgents{"Agents", kAgentsFields};

constexpr Field kSpendFields[] = {{.name = "today", .kind = FieldKind::kNumber, .required = true},
                                  {.name = "week", .kind = FieldKind::kNumber, .required = true},
                                  {.name = "month", .kind = FieldKind::kNumber, .required = true},
                                  {.name = "total", .kind = FieldKind::kNumber, .required = true}};
constexpr Schema kSpend{"AgentSpend", kSpendFields};
constexpr Field kModelUseFields[] = {{.name = "model", .required = true},
                                     {.name = "provider", .required = true},
                                     {.name = "events", .kind = FieldKind::kInteger, .required = true},
                                     {.name = "cost", .kind = FieldKind::kNumber, .required = true},
                                     {.name = "input_tokens", .kind = FieldKind::kInteger, .required = true},
                                     {.name = "output_tokens", .kind = FieldKind::kInteger, .required = true},
                                     {.name = "pct", .kind = FieldKind::kNumber, .required = true}};
constexpr Schema kModelUse{"ModelUse", kModelUseFields};
constexpr Field kDayFields[] = {{.name = "date", .required = true},
                                {.name = "cost", .kind = FieldKind::kNumber, .required = true},
                                {.name = "events", .kind = FieldKind::kInteger, .required = true}};
constexpr Schema kDay{"SpendOfDay", kDayFields};
constexpr Field kDetailFields[] = {
    KAVACH_AGENT_FIELDS,
    {.name = "spend", .kind = FieldKind::kObject, .required = true, .item = &kSpend},
    {.name = "primary_model", .required = true, .nullable = true},
    {.name = "model_usage",
     .kind = FieldKind::kList,
     .required = true,
     .item = &kModelUse,
     .help = "Of the last 30 days"},
    {.name = "spend_history",
     .kind = FieldKind::kList,
     .required = true,
     .item = &kDay,
     .help = "Seven days of the organization's time zone, oldest first"},
    {.name = "budgets", .kind = FieldKind::kList, .required = true, .item = &kBudget},
    {.name = "killed_at", .kind = FieldKind::kTimestamp, .required = true, .nullable = true},
    {.name = "error_count", .kind = FieldKind::kInteger, .required = true},
    {.name = "success_rate", .kind = FieldKind::kNumber, .required = true},
    {.name = "avg_duration_ms",
     .kind = FieldKind::kNumber,
     .required = true,
     .help = "Of the timed calls of the last 30 days"}};
constexpr Schema kDetail{"AgentDetail", kDetailFields};
#undef KAVACH_AGENT_FIELDS

constexpr Field kRangeFields[] = {{.name = "start", .kind = FieldKind::kTimestamp},
                                  {.name = "end", .kind = FieldKind::kTimestamp}};
constexpr Schema kRange{"Range", kRangeFields};

sink::AgentWindows windows_of(const Call& call, std::string_view zone) {
  const WallMicros now = call.services.clock.wall();
  sink::AgentWindows windows{.today = day_start(zone, now),
                             .week = day_start(zone, now, 1 - kWeekDays),
                             .month = day_start(zone, now, 1 - kMonthDays)};
  // An end within an hour whose minutes are gone moves to the hour's beginning.
  const auto edge = [&](std::string_view name, WallMicros otherwise) {
    if (!call.query.has(name)) return otherwise;
    const WallMicros at = call.query.timestamp(name);
    return at < now - sink::kMinuteRowsUs ? at - at % kMicrosPerHour : at;
  };
  windows.range_start = edge("start", windows.month);
  windows.range_end = edge("end", kForEver);
  return windows;
}

bool is_rejected(const AgentRow& agent, const sink::AgentWindows& windows) {
  return agent.rejected_at && *agent.rejected_at >= windows.today &&
         *agent.rejected_at > agent.last_received.value_or(0);
}

std::string_view status_of(const AgentRow& agent, const sink::AgentWindows& windows, WallMicros now) {
  if (agent.killed_at) return "killed";
  if (is_rejected(agent, windows)) return "rejected";
  return agent.last_received.value_or(0) > now - kMicrosPerDay ? "active" : "inactive";
}

// The members of an agent, without its braces.
void render_members(const AgentRow& agent, const sink::AgentWindows& windows, WallMicros now, JsonOut& out) {
  out.text("agent_name", agent.name)
      .text_or_null("provider", agent.provider)
      .text_or_null("model", agent.model)
      .integer("total_events", agent.events)
      .usd("total_cost", agent.cost)
      .usd("cost_today", agent.cost_today)
      .usd("cost_week", agent.cost_week)
      .usd("cost_month", agent.cost_month)
      .integer("input_tokens_today", agent.input_tokens_today)
      .integer("output_tokens_today", agent.output_tokens_today)
      .integer("total_input_tokens", agent.input_tokens)
      .integer("total_output_tokens", agent.output_tokens)
      .integer("total_duration_ms", agent.duration_ms)
      .integer("range_events", agent.range_events)
      .usd("range_cost", agent.range_cost);
  agent.budget_limit ? out.number("budget_limit_usd", *agent.budget_limit) : out.null("budget_limit_usd");
  out.number("budget_used_pct", percent(agent.budget_used, agent.budget_limit.value_or(0)))
      .text("status", status_of(agent, windows, now))
      .flag("has_kill_switch", agent.has_kill_switch)
      .time("last_active", agent.last_event);
}

Outcome list(Call& call) {
  auto settings = sink::org_settings(call.store, call.caller.org_id);
  if (!settings) return settings.error();
  const sink::AgentWindows windows = windows_of(call, known_zone(settings->timezone));
  auto agents = sink::agents_of(call.store, call.caller.org_id, windows);
  if (!agents) return agents.error();
  auto prefix = sink::newest_key_prefix(call.store, call.caller.org_id);
  if (!prefix) return prefix.error();
  const WallMicros now = call.services.clock.wall();
  JsonOut out;
  out.begin().key("agents").begin_list();
  for (const AgentRow& agent : *agents) {
    out.begin();
    render_members(agent, windows, now, out);
    out.end();
  }
  out.end_list()
      .integer("total", static_cast<std::int64_t>(agents->size()))
      .text_or_null("api_key_prefix", *prefix)
      .text("tier", settings->tier)
      .text("timezone", known_zone(settings->timezone));
  out.key("rejected_agents").begin_list();
  std::vector<std::string_view> rejected;
  for (const AgentRow& agent : *agents) {
    if (!agent.killed_at && is_rejected(agent, windows)) rejected.push_back(agent.name);
  }
  std::sort(rejected.begin(), rejected.end());
  for (const std::string_view name : rejected) out.text(name);
  out.end_list().end();
  return Reply{.body = out.take()};
}

Outcome show(Call& call) {
  auto settings = sink::org_settings(call.store, call.caller.org_id);
  if (!settings) return settings.error();
  const std::string_view zone = known_zone(settings->timezone);
  const sink::AgentWindows windows = windows_of(call, zone);
  auto found = sink::agents_of(call.store, call.caller.org_id, windows, call.path[0]);
  if (!found) return found.error();
  if (found->empty()) return unknown_agent();
  const AgentRow& agent = found->front();
  const WallMicros now = call.services.clock.wall();
  std::vector<WallMicros> days;
  for (int day = 1 - kWeekDays; day <= 1; ++day) days.push_back(day_start(zone, now, day));
  auto detail = sink::agent_detail(call.store, call.caller.org_id, agent.name, windows.month, days);
  if (!detail) return detail.error();
  auto budgets = sink::agent_budgets(call.store, call.caller.org_id, agent.name);
  if (!budgets) return budgets.error();

  JsonOut out;
  out.begin();
  render_members(agent, windows, now, out);
  out.key("spend")
      .begin()
      .usd("today", agent.cost_today)
      .usd("week", agent.cost_week)
      .usd("month", agent.cost_month)
      .usd("total", agent.cost)
      .end();
  out.text_or_null("primary_model", detail->models.empty() ? "" : detail->models.front().model);
  std::int64_t cost = 0;
  for (const sink::ModelUse& use : detail->models) cost = saturating_add(cost, use.cost);
  out.key("model_usage").begin_list();
  for (const sink::ModelUse& use : detail->models) {
    out.begin()
        .text("model", use.model)
        .text("provider", use.provider)
        .integer("events", use.events)
        .usd("cost", use.cost)
        .integer("input_tokens", use.input_tokens)
        .integer("output_tokens", use.output_tokens)
        .number("pct", percent(static_cast<double>(use.cost), static_cast<double>(cost)))
        .end();
  }
  out.end_list().key("spend_history").begin_list();
  for (std::size_t i = 0; i < detail->days.size(); ++i) {
    out.begin()
        .text("date", local_date(zone, days[i]))
        .usd("cost", detail->days[i].cost)
        .integer("events", detail->days[i].events)
        .end();
  }
  out.end_list().key("budgets").begin_list();
  for (const sink::BudgetRow& budget : *budgets) render(budget, out);
  const auto events = static_cast<double>(agent.events);
  out.end_list()
      .time("killed_at", agent.killed_at)
      .integer("error_count", agent.errors)
      .number("success_rate",
              agent.events > 0 ? percent(static_cast<double>(agent.events - agent.errors), events) : 100)
      .number("avg_duration_ms", detail->timed_events > 0 ? static_cast<double>(detail->duration_ms) /
                                                                static_cast<double>(detail->timed_events)
                                                          : 0)
      .end();
  return Reply{.body = out.take()};
}

// --- events ------------------------------------------------------------------------------------------------

constexpr std::string_view kStatuses[] = {"success", "error"};
constexpr Field kEventsQueryFields[] = {
    {.name = "limit", .kind = FieldKind::kInteger, .at_least = 1, .at_most = 500, .preset = "50"},
    {.name = "offset", .kind = FieldKind::kInteger, .at_least = 0, .preset = "0"},
    {.name = "status", .kind = FieldKind::kChoice, .choices = kStatuses},
    {.name = "run_id", .text = {.chars_min = 1, .chars_max = 255}},
    {.name = "start", .kind = FieldKind::kTimestamp},
    {.name = "end", .kind = FieldKind::kTimestamp}};
constexpr Schema kEventsQuery{"AgentEventsQuery", kEventsQueryFields};
constexpr Field kEventsFields[] = {
    {.name = "events", .kind = FieldKind::kList, .required = true, .item = &kEvent},
    {.name = "total", .kind = FieldKind::kInteger, .required = true},
    {.name = "limit", .kind = FieldKind::kInteger, .required = true},
    {.name = "offset", .kind = FieldKind::kInteger, .required = true}};
constexpr Schema kEvents{"AgentEvents", kEventsFields};

Outcome list_events(Call& call) {
  const Form& query = call.query;
  sink::EventFilter filter{.run_id = query.text_or("run_id", ""),
                           .limit = query.integer("limit"),
                           .offset = query.integer("offset")};
  if (query.has("status")) filter.is_error = query.text("status") == "error";
  if (query.has("start")) filter.start = query.timestamp("start");
  if (query.has("end")) filter.end = query.timestamp("end");
  auto page = sink::agent_events(call.store, call.caller.org_id, call.path[0], filter);
  if (!page) return page.error();
  JsonOut out;
  out.begin();
  render_events(*page, out);
  out.integer("total", page->total).integer("limit", filter.limit).integer("offset", filter.offset).end();
  return Reply{.body = out.take()};
}

// --- budgets -----------------------------------------------------------------------------------------------

constexpr Field kPutFields[] = {
    {.name = "budget_type", .kind = FieldKind::kChoice, .required = true, .choices = kBudgetTypes},
    {.name = "period", .kind = FieldKind::kChoice, .required = true, .choices = kBudgetPeriods},
    {.name = "limit_value", .kind = FieldKind::kNumber, .required = true, .greater_than = 0.0}};
constexpr Schema kPut{"PutAgentBudget", kPutFields};

Outcome list_budgets(Call& call) {
  auto budgets = sink::agent_budgets(call.store, call.caller.org_id, call.path[0]);
  if (!budgets) return budgets.error();
  return budgets_reply(*budgets);
}

Outcome put_budget(Call& call) {
  const std::string_view type = call.body.text("budget_type");
  auto put = sink::put_agent_budget(call.store, call.caller.org_id, call.path[0], type,
                                    call.body.text("period"), call.body.number("limit_value"), unit_of(type));
  if (!put) return put.error();
  if (!*put) return unknown_agent();
  JsonOut out;
  render(**put, out);
  return Reply{.status = 201, .body = out.take()};
}

// --- the kill switch ---------------------------------------------------------------------------------------

constexpr Field kKilledFields[] = {
    {.name = "agent_name", .required = true},
    {.name = "status", .required = true},
    {.name = "killed_at", .kind = FieldKind::kTimestamp, .required = true},
    {.name = "alert_id",
     .required = true,
     .nullable = true,
     .help = "Of the alert event; null when it is gone, or the agent was killed on the command line"}};
constexpr Schema kKilled{"KilledAgent", kKilledFields};
constexpr Field kAllKilledFields[] = {{.name = "killed", .kind = FieldKind::kTexts, .required = true},
                                      {.name = "count", .kind = FieldKind::kInteger, .required = true}};
constexpr Schema kAllKilled{"KilledAgents", kAllKilledFields};
constexpr Field kRevivedFields[] = {{.name = "agent_name", .required = true},
                                    {.name = "status", .required = true}};
constexpr Schema kRevived{"RevivedAgent", kRevivedFields};

Outcome kill(Call& call) {
  auto kill = sink::kill_agent(call.store, call.caller.org_id, call.path[0]);
  if (!kill) return kill.error();
  if (!*kill) return unknown_agent();
  if ((*kill)->is_new) call.services.directory_changed();
  JsonOut out;
  out.begin().text("agent_name", call.path[0]).text("status", "killed").time("killed_at", (*kill)->killed_at);
  const std::string& alert = (*kill)->alert_id;
  out.text_or_null("alert_id", alert.empty() ? alert : std::string(kAlertPrefix) + alert).end();
  return Reply{.body = out.take()};
}

Outcome kill_all(Call& call) {
  auto names = sink::kill_active_agents(call.store, call.caller.org_id);
  if (!names) return names.error();
  if (!names->empty()) call.services.directory_changed();
  JsonOut out;
  out.begin().key("killed").begin_list();
  for (const std::string& name : *names) out.text(name);
  out.end_list().integer("count", static_cast<std::int64_t>(names->size())).end();
  return Reply{.body = out.take()};
}

Outcome reactivate(Call& call) {
  auto revived = sink::reactivate_agent(call.store, call.caller.org_id, call.path[0]);
  if (!revived) return revived.error();
  if (!*revived) return unknown_agent();
  call.services.directory_changed();
  return Reply{.body =
                   JsonOut().begin().text("agent_name", call.path[0]).text("status", "active").end().take()};
}

constexpr int kNotFound[] = {404};
constexpr std::string_view kTag = "agents";
constexpr Endpoint kEndpoints[] = {
    {.method = Method::kGet,
     .path = "/v1/agents",
     .tag = kTag,
     .summary = "All agents and what they use",
     .access = Access::kMember,
     .query = &kRange,
     .reply = &kAgents,
     .run = list},
    {.method = Method::kGet,
     .path = "/v1/agents/{name}",
     .tag = kTag,
     .summary = "An agent in detail",
     .access = Access::kMember,
     .query = &kRange,
     .reply = &kDetail,
     .errors = kNotFound,
     .run = show},
    {.method = Method::kGet,
     .path = "/v1/agents/{name}/events",
     .tag = kTag,
     .summary = "An agent's events, newest first",
     .access = Access::kMember,
     .query = &kEventsQuery,
     .reply = &kEvents,
     .errors = kNotFound,
     .run = of_known_agent<list_events>},
    {.method = Method::kGet,
     .path = "/v1/agents/{name}/budgets",
     .tag = kTag,
     .summary = "An agent's budgets and what is used of them",
     .access = Access::kMember,
     .reply = &kBudgetList,
     .errors = kNotFound,
     .run = of_known_agent<list_budgets>},
    {.method = Method::kPost,
     .path = "/v1/agents/{name}/budgets",
     .tag = kTag,
     .summary = "Set an agent's budget of a type and period",
     .access = Access::kAdmin,
     .body = &kPut,
     .status = 201,
     .reply = &kBudget,
     .errors = kNotFound,
     .run = put_budget},
    {.method = Method::kPost,
     .path = "/v1/agents/{name}/kill",
     .tag = kTag,
     .summary = "Refuse an agent's events from now on",
     .access = Access::kAdmin,
     .reply = &kKilled,
     .errors = kNotFound,
     .run = kill},
    {.method = Method::kPost,
     .path = "/v1/agents/kill-all",
     .tag = kTag,
     .summary = "Kill all agents with an event in the last 24 hours",
     .access = Access::kAdmin,
     .reply = &kAllKilled,
     .run = kill_all},
    {.method = Method::kPost,
     .path = "/v1/agents/{name}/reactivate",
     .tag = kTag,
     .summary = "Take a killed agent's events again",
     .access = Access::kAdmin,
     .reply = &kRevived,
     .errors = kNotFound,
     .run = reactivate},
};

}  // namespace

std::span<const Endpoint> agent_endpoints() {
  return kEndpoints;
}

}  // namespace kavach::http
