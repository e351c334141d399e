// POST /v1/sync-config: an SDK says with which budgets and alerts its agent runs (contract/agentkavach.md
// section 3).
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/bounds.h"
#include "http/control/alert_target.h"
#include "http/control/endpoint.h"
#include "http/control/shapes.h"
#include "sink/store/control/config_sync.h"

namespace kavach::http {
namespace {

constexpr std::string_view kUnits[] = {"usd", "tokens", "calls", "ms", "loops"};
constexpr std::string_view kOrgTypes[] = {"cost"};

constexpr Field kSyncBudgetFields[] = {
    {.name = "budget_type", .kind = FieldKind::kChoice, .required = true, .choices = kBudgetTypes},
    {.name = "period", .kind = FieldKind::kChoice, .required = true, .choices = kBudgetPeriods},
    {.name = "limit_value", .kind = FieldKind::kNumber, .required = true, .greater_than = 0.0},
    {.name = "unit", .kind = FieldKind::kChoice, .nullable = true, .choices = kUnits}};
constexpr Schema kSyncBudget{"SyncBudget", kSyncBudgetFields};
constexpr Field kOrgBudgetFields[] = {
    {.name = "budget_type", .kind = FieldKind::kChoice, .choices = kOrgTypes, .preset = R"("cost")"},
    {.name = "period", .kind = FieldKind::kChoice, .required = true, .choices = kOrgBudgetPeriods},
    {.name = "limit_value", .kind = FieldKind::kNumber, .required = true, .greater_than = 0.0},
    {.name = "unit", .kind = FieldKind::kChoice, .nullable = true, .choices = kUnits}};
constexpr Schema kOrgBudget{"SyncOrgBudget", kOrgBudgetFields};
constexpr Field kAlertFields[] = {
    {.name = "channel", .kind = FieldKind::kChoice, .required = true, .choices = kAlertChannels},
    {.name = "threshold_pct",
     .kind = FieldKind::kNumber,
     .required = true,
     .greater_than = 0.0,
     .at_most = 1.0,
     .help = "A fraction"},
    {.name = "budget_type", .kind = FieldKind::kChoice, .choices = kBudgetTypes, .preset = R"("cost")"},
    {.name = "target", .nullable = true, .text = {.chars_min = 0, .chars_max = 2048}},
    {.name = "secret", .nullable = true, .text = {.chars_min = 0, .chars_max = 1024}}};
constexpr Schema kAlert{"SyncAlert", kAlertFields};
constexpr Field kSyncFields[] = {
    {.name = "agent_name", .required = true, .text = {.chars_min = 1, .chars_max = bounds::kNameCharsMax}},
    {.name = "budgets", .kind = FieldKind::kList, .item = &kSyncBudget, .preset = "[]"},
    {.name = "alert_configs", .kind = FieldKind::kList, .item = &kAlert, .preset = "[]"},
    {.name = "org_budget",
     .kind = FieldKind::kObject,
     .nullable = true,
     .item = &kOrgBudget,
     .help = "Null: the organization's budgets stay"},
    {.name = "org_alert_configs",
     .kind = FieldKind::kList,
     .item = &kAlert,
     .help = "Absent: the organization's configurations stay"}};
constexpr Schema kSync{"SyncConfig", kSyncFields};

constexpr Field kSyncedFields[] = {
    {.name = "status", .required = true},
    {.name = "agent_name", .required = true},
    {.name = "budgets_synced", .kind = FieldKind::kInteger, .required = true},
    {.name = "alert_configs_synced", .kind = FieldKind::kInteger, .required = true},
    {.name = "org_budget_synced", .kind = FieldKind::kFlag, .required = true},
    {.name = "org_alert_configs_synced", .kind = FieldKind::kInteger, .required = true}};
constexpr Schema kSynced{"SyncedConfig", kSyncedFields};

sink::SyncedBudget budget_of(const Form& form) {
  const std::string_view type = form.text("budget_type");
  return {.type = std::string(type),
          .period = std::string(form.text("period")),
          .unit = std::string(form.text_or("unit", unit_of(type))),
          .limit = form.number("limit_value")};
}

std::vector<sink::AlertConfig> alerts_of(std::span<const Form> forms, const SecretBox& secrets) {
  const auto sealed = [&](std::string_view text) { return text.empty() ? "" : secrets.seal(text); };
  std::vector<sink::AlertConfig> alerts;
  for (const Form& form : forms) {
    const std::string_view target = form.text_or("target", "");
    alerts.push_back({.id = {},
                      .agent_name = {},
                      .channel = std::string(form.text("channel")),
                      .threshold = form.number("threshold_pct"),
                      .budget_type = std::string(form.text("budget_type")),
                      .target_sealed = sealed(target),
                      .target_hash = hash_of_target(target),
                      .secret_sealed = sealed(form.text_or("secret", "")),
                      .source = {}});
  }
  return alerts;
}

Outcome sync(Call& call) {
  const Form& body = call.body;
  const SecretBox& secrets = call.services.secrets;
  sink::ConfigSync sync{.agent_name = std::string(body.text("agent_name")),
                        .budgets = {},
                        .alerts = alerts_of(body.list("alert_configs"), secrets),
                        .org_budget = {},
                        .org_alerts = {}};
  for (const Form& budget : body.list("budgets")) sync.budgets.push_back(budget_of(budget));
  if (body.has("org_budget")) sync.org_budget = budget_of(body.object("org_budget"));
  if (body.has("org_alert_configs")) sync.org_alerts = alerts_of(body.list("org_alert_configs"), secrets);

  // What another key has sealed is sealed anew.
  const auto same_text = [&](std::string_view stored, std::string_view given) {
    const auto old = secrets.open(stored);
    const auto now = secrets.open(given);
    return old && now && *old == *now;
  };
  auto synced = sink::sync_config(call.store, call.caller.org_id, std::move(sync), same_text);
  if (!synced) return synced.error();
  if (synced->org_budget_changed) call.services.directory_changed();
  return Reply{.body = JsonOut()
                           .begin()
                           .text("status", "ok")
                           .text("agent_name", body.text("agent_name"))
                           .integer("budgets_synced", static_cast<std::int64_t>(synced->budgets))
                           .integer("alert_configs_synced", static_cast<std::int64_t>(synced->alerts))
                           .flag("org_budget_synced", body.has("org_budget"))
                           .integer("org_alert_configs_synced", static_cast<std::int64_t>(synced->org_alerts))
                           .end()
                           .take()};
}

constexpr Endpoint kEndpoints[] = {
    {.method = Method::kPost,
     .path = "/v1/sync-config",
     .tag = "ingest",
     .summary = "What an agent's SDK is set to",
     .access = Access::kApiKey,
     .body = &kSync,
     .reply = &kSynced,
     .run = sync},
};

}  // namespace

std::span<const Endpoint> sync_config_endpoints() {
  return kEndpoints;
}

}  // namespace kavach::http
