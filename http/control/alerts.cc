// The endpoints of alerts and their configurations (contract/agentkavach.md sections 6 and 7). A target is
// shown masked, a secret never.
#include <utility>

#include "engine/bounds.h"
#include "engine/calendar.h"
#include "http/control/alert_target.h"
#include "http/control/endpoint.h"
#include "http/control/shapes.h"
#include "http/control/time_zone.h"
#include "http/ingest/utf8.h"
#include "http/outbound/http_client.h"
#include "sink/store/control/agents.h"
#include "sink/store/control/alert_configs.h"
#include "sink/store/control/alert_events.h"
#include "sink/store/control/organization.h"

namespace kavach::http {
namespace {

using sink::AlertConfig;
using sink::AlertEvent;

// --- what fired --------------------------------------------------------------------------------------------

constexpr std::int64_t kNewestShown = 200;
constexpr std::string_view kRanges[] = {"today", "7d", "30d", "90d"};

constexpr Field kRangeFields[] = {
    {.name = "range", .kind = FieldKind::kChoice, .choices = kRanges, .preset = R"("7d")"}};
constexpr Schema kRange{"AlertsRange", kRangeFields};
constexpr Field kLimitFields[] = {
    {.name = "limit", .kind = FieldKind::kInteger, .at_least = 1, .at_most = kNewestShown, .preset = "50"}};
constexpr Schema kLimit{"AgentAlertsLimit", kLimitFields};
constexpr Field kEventFields[] = {
    {.name = "id", .required = true},
    {.name = "agent_name", .required = true, .nullable = true},
    {.name = "channel", .required = true},
    {.name = "threshold_pct", .kind = FieldKind::kNumber, .required = true, .nullable = true},
    {.name = "budget_type", .required = true, .nullable = true},
    {.name = "level", .required = true, .nullable = true},
    {.name = "current_value", .kind = FieldKind::kNumber, .required = true, .nullable = true},
    {.name = "limit_value", .kind = FieldKind::kNumber, .required = true, .nullable = true},
    {.name = "period", .required = true, .nullable = true},
    {.name = "period_key", .required = true, .nullable = true},
    {.name = "message", .required = true, .nullable = true},
    {.name = "delivered", .kind = FieldKind::kFlag, .required = true},
    {.name = "error", .required = true, .nullable = true},
    {.name = "created_at", .kind = FieldKind::kTimestamp, .required = true}};
constexpr Schema kAlertEvent{"AlertEvent", kEventFields};
constexpr Field kAgentEventsFields[] = {
    {.name = "alerts", .kind = FieldKind::kList, .required = true, .item = &kAlertEvent},
    {.name = "total", .kind = FieldKind::kInteger, .required = true}};
constexpr Schema kAgentEvents{"AgentAlerts", kAgentEventsFields};
constexpr Field kEventsFields[] = {
    {.name = "alerts", .kind = FieldKind::kList, .required = true, .item = &kAlertEvent},
    {.name = "total", .kind = FieldKind::kInteger, .required = true},
    {.name = "range", .required = true}};
constexpr Schema kEvents{"Alerts", kEventsFields};

void number_or_null(std::string_view name, std::optional<double> value, JsonOut& out) {
  value ? out.number(name, *value) : out.null(name);
}

void render(const AlertEvent& event, JsonOut& out) {
  out.begin()
      .text("id", std::string(kAlertPrefix) + event.id)
      .text_or_null("agent_name", event.agent_name)
      .text("channel", event.channel);
  number_or_null("threshold_pct", event.threshold, out);
  out.text_or_null("budget_type", event.budget_type).text_or_null("level", event.level);
  number_or_null("current_value", event.current, out);
  number_or_null("limit_value", event.limit, out);
  out.text_or_null("period", event.period)
      .text_or_null("period_key", event.period_key)
      .text_or_null("message", event.message)
      .flag("delivered", event.delivered)
      .text_or_null("error", event.error)
      .time("created_at", event.created_at)
      .end();
}

void render(const sink::AlertEvents& events, JsonOut& out) {
  out.begin().key("alerts").begin_list();
  for (const AlertEvent& event : events.newest) render(event, out);
  out.end_list().integer("total", events.total);
}

Outcome list_events(Call& call) {
  const std::string_view range = call.query.text("range");
  const WallMicros now = call.services.clock.wall();
  WallMicros from = now - (range == "7d" ? 7 : range == "30d" ? 30 : 90) * kMicrosPerDay;
  if (range == "today") {
    auto settings = sink::org_settings(call.store, call.caller.org_id);
    if (!settings) return settings.error();
    from = day_start(known_zone(settings->timezone), now);
  }
  auto events = sink::alert_events(call.store, call.caller.org_id, from, kNewestShown);
  if (!events) return events.error();
  JsonOut out;
  render(*events, out);
  return Reply{.body = out.text("range", range).end().take()};
}

Outcome list_agent_events(Call& call) {
  const std::string_view agent = call.path[0];
  auto events = sink::agent_alert_events(call.store, call.caller.org_id, agent, call.query.integer("limit"));
  if (!events) return events.error();
  JsonOut out;
  render(*events, out);
  return Reply{.body = out.end().take()};
}

// --- configurations ----------------------------------------------------------------------------------------

constexpr Field kPutFields[] = {
    {.name = "agent_name", .required = true, .text = {.chars_min = 1, .chars_max = bounds::kNameCharsMax}},
    {.name = "channel", .kind = FieldKind::kChoice, .required = true, .choices = kAlertChannels},
    {.name = "threshold_pct",
     .kind = FieldKind::kNumber,
     .required = true,
     .greater_than = 0.0,
     .at_most = 100.0,
     .help = "A fraction; above 1 it is taken as percent"},
    {.name = "budget_type", .kind = FieldKind::kChoice, .choices = kBudgetTypes, .preset = R"("cost")"},
    {.name = "target", .nullable = true, .text = {.chars_min = 0, .chars_max = 2048}},
    {.name = "secret",
     .nullable = true,
     .text = {.chars_min = 0, .chars_max = 1024},
     .help = "Absent: what there is stays; empty: none"}};
constexpr Schema kPut{"PutAlertConfig", kPutFields};
constexpr Field kConfigFields[] = {{.name = "id", .required = true},
                                   {.name = "agent_name", .required = true, .nullable = true},
                                   {.name = "channel", .required = true},
                                   {.name = "threshold_pct", .kind = FieldKind::kNumber, .required = true},
                                   {.name = "budget_type", .required = true},
                                   {.name = "target", .required = true, .nullable = true, .help = "Masked"},
                                   {.name = "has_secret", .kind = FieldKind::kFlag, .required = true},
                                   {.name = "is_active", .kind = FieldKind::kFlag, .required = true},
                                   {.name = "source", .required = true},
                                   {.name = "created_at", .kind = FieldKind::kTimestamp, .required = true}};
constexpr Schema kConfig{"AlertConfig", kConfigFields};
constexpr Field kConfigsFields[] = {
    {.name = "configs", .kind = FieldKind::kList, .required = true, .item = &kConfig},
    {.name = "total", .kind = FieldKind::kInteger, .required = true}};
constexpr Schema kConfigs{"AlertConfigs", kConfigsFields};

// E-mail in clear, of a URL no more than its host, of a key its last four characters.
std::string masked(std::string_view channel, std::string_view target) {
  constexpr std::string_view kScheme = "://";
  if (const std::size_t scheme = target.find(kScheme); scheme != std::string_view::npos) {
    const std::size_t start = scheme + kScheme.size();
    std::string_view host = target.substr(start, target.find_first_of("/?#\\", start) - start);
    host.remove_prefix(host.rfind('@') == std::string_view::npos ? 0 : host.rfind('@') + 1);
    return std::string(target.substr(0, start)).append(host).append("/***");
  }
  if (channel == "email") return std::string(target);
  // Of a short one four characters would be too much.
  constexpr std::size_t kShown = 4;
  std::string text = "***";
  const std::size_t chars = count_chars(target);
  if (chars > 2 * kShown) text += target.substr(prefix_chars(target, chars - kShown).size());
  return text;
}

void render(const AlertConfig& config, const SecretBox& secrets, JsonOut& out) {
  out.begin()
      .text("id", std::string(kAlertPrefix) + config.id)
      .text_or_null("agent_name", config.agent_name)
      .text("channel", config.channel)
      .number("threshold_pct", config.threshold)
      .text("budget_type", config.budget_type);
  if (config.target_sealed.empty()) {
    out.null("target");
  } else {
    // What another key has sealed is there, and nobody here can read it.
    const auto target = secrets.open(config.target_sealed);
    out.text("target", target ? masked(config.channel, *target) : "***");
  }
  out.flag("has_secret", !config.secret_sealed.empty())
      .flag("is_active", config.is_active)
      .text("source", config.source)
      .time("created_at", config.created_at)
      .end();
}

Reply configs_reply(const std::vector<AlertConfig>& configs, const SecretBox& secrets) {
  JsonOut out;
  out.begin().key("configs").begin_list();
  for (const AlertConfig& config : configs) render(config, secrets, out);
  out.end_list().integer("total", static_cast<std::int64_t>(configs.size())).end();
  return {.body = out.take()};
}

Outcome list_configs(Call& call) {
  auto configs = sink::alert_configs(call.store, call.caller.org_id);
  if (!configs) return configs.error();
  return configs_reply(*configs, call.services.secrets);
}

Outcome list_agent_configs(Call& call) {
  const std::string_view agent = call.path[0];
  auto configs = sink::agent_alert_configs(call.store, call.caller.org_id, agent);
  if (!configs) return configs.error();
  return configs_reply(*configs, call.services.secrets);
}

// What is wrong with it; empty: nothing.
std::string_view fault_of_target(std::string_view channel, std::string_view target) {
  if (target.empty()) return channel == "email" || channel == "kill" ? "" : "This channel needs a target.";
  if ((channel == "slack" || channel == "webhook") && !parse_target(target))
    return "The target of this channel is an http:// or https:// URL.";
  if (channel == "email" && (target.find('@') == std::string_view::npos ||
                             target.find_first_of(" \t\r\n,;<>") != std::string_view::npos))
    return "The target of this channel is an email address.";
  return {};
}

Outcome put_config(Call& call) {
  const std::string_view channel = call.body.text("channel");
  const std::string_view target = call.body.text_or("target", "");
  const std::string_view secret = call.body.text_or("secret", "");
  if (const std::string_view fault = fault_of_target(channel, target); !fault.empty()) {
    call.reader.refuse("body", "target", fault, target);
    return invalid(call);
  }
  const double threshold = call.body.number("threshold_pct");
  const SecretBox& secrets = call.services.secrets;
  AlertConfig config{.id = {},
                     .agent_name = std::string(call.body.text("agent_name")),
                     .channel = std::string(channel),
                     .threshold = threshold > 1 ? threshold / 100 : threshold,
                     .budget_type = std::string(call.body.text("budget_type")),
                     .target_sealed = target.empty() ? "" : secrets.seal(target),
                     .target_hash = hash_of_target(target),
                     .secret_sealed = secret.empty() ? "" : secrets.seal(secret),
                     .source = {}};
  auto put =
      sink::put_alert_config(call.store, call.caller.org_id, std::move(config), !call.body.has("secret"));
  if (!put) return put.error();
  JsonOut out;
  render(*put, secrets, out);
  return Reply{.status = 201, .body = out.take()};
}

constexpr int kNotFound[] = {404};
constexpr std::string_view kTag = "alerts";
constexpr Endpoint kEndpoints[] = {
    {.method = Method::kGet,
     .path = "/v1/alerts",
     .tag = kTag,
     .summary = "What fired in a time, the newest 200",
     .access = Access::kMember,
     .query = &kRange,
     .reply = &kEvents,
     .run = list_events},
    {.method = Method::kGet,
     .path = "/v1/alerts/configs",
     .tag = kTag,
     .summary = "All configurations, the organization's too",
     .access = Access::kMember,
     .reply = &kConfigs,
     .run = list_configs},
    {.method = Method::kPost,
     .path = "/v1/alerts/configs",
     .tag = kTag,
     .summary = "Make a configuration, or change the same one",
     .access = Access::kAdmin,
     .body = &kPut,
     .status = 201,
     .reply = &kConfig,
     .run = put_config},
    {.method = Method::kGet,
     .path = "/v1/agents/{name}/alerts",
     .tag = kTag,
     .summary = "What fired for an agent, newest first",
     .access = Access::kMember,
     .query = &kLimit,
     .reply = &kAgentEvents,
     .errors = kNotFound,
     .run = of_known_agent<list_agent_events>},
    {.method = Method::kGet,
     .path = "/v1/agents/{name}/configs",
     .tag = kTag,
     .summary = "An agent's configurations",
     .access = Access::kMember,
     .reply = &kConfigs,
     .errors = kNotFound,
     .run = of_known_agent<list_agent_configs>},
};

}  // namespace

std::span<const Endpoint> alert_endpoints() {
  return kEndpoints;
}

}  // namespace kavach::http
