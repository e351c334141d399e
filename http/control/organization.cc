// The endpoints of an organization's settings and budgets (contract/agentkavach.md section 7).
#include "sink/store/control/organization.h"
#include "http/control/endpoint.h"
#include "http/control/shapes.h"
#include "http/control/time_zone.h"

namespace kavach::http {
namespace {

// --- settings ----------------------------------------------------------------------------------------------

constexpr Field kChangeFields[] = {
    {.name = "org_name", .text = {.chars_min = 1, .chars_max = 255}},
    {.name = "timezone", .text = {.chars_min = 1, .chars_max = 64}, .help = "An IANA name"}};
constexpr Schema kChange{"ChangeSettings", kChangeFields};
constexpr Field kSettingsFields[] = {{.name = "org_name", .required = true},
                                     {.name = "timezone", .required = true},
                                     {.name = "tier", .required = true},
                                     {.name = "org_id", .required = true}};
constexpr Schema kSettings{"Settings", kSettingsFields};

Outcome show_settings(Call& call) {
  auto settings = sink::org_settings(call.store, call.caller.org_id);
  if (!settings) return settings.error();
  return Reply{.body = JsonOut()
                           .begin()
                           .text("org_name", settings->org_name)
                           .text("timezone", settings->timezone)
                           .text("tier", settings->tier)
                           .text("org_id", settings->org_id)
                           .end()
                           .take()};
}

Outcome change_settings(Call& call) {
  std::optional<std::string_view> name, zone;
  if (call.body.has("org_name")) name = call.body.text("org_name");
  if (call.body.has("timezone")) zone = call.body.text("timezone");
  if (zone && !is_time_zone(*zone)) {
    call.reader.refuse("body", "timezone", "Unknown time zone. Use an IANA name.", *zone);
    return invalid(call);
  }
  if (auto set = sink::set_org_settings(call.store, call.caller.org_id, name, zone); !set) return set.error();
  return show_settings(call);
}

// --- budgets -----------------------------------------------------------------------------------------------

constexpr Field kPutFields[] = {
    {.name = "budget_type", .kind = FieldKind::kChoice, .required = true, .choices = kOrgBudgetTypes},
    {.name = "period", .kind = FieldKind::kChoice, .required = true, .choices = kOrgBudgetPeriods},
    {.name = "limit_value", .kind = FieldKind::kNumber, .required = true, .greater_than = 0.0}};
constexpr Schema kPut{"PutBudget", kPutFields};
Outcome list_budgets(Call& call) {
  auto budgets = sink::org_budgets(call.store, call.caller.org_id);
  if (!budgets) return budgets.error();
  return budgets_reply(*budgets);
}

Outcome put_budget(Call& call) {
  const std::string_view type = call.body.text("budget_type");
  auto put = sink::put_org_budget(call.store, call.caller.org_id, type, call.body.text("period"),
                                  call.body.number("limit_value"), unit_of(type));
  if (!put) return put.error();
  call.services.directory_changed();
  JsonOut out;
  render(put->budget, out);
  return Reply{.status = put->created ? 201 : 200, .body = out.take()};
}

Outcome drop_budget(Call& call) {
  auto dropped = sink::drop_org_budget(call.store, call.caller.org_id, budget_id(call.path[0]));
  if (!dropped) return dropped.error();
  if (!*dropped) return not_found("Budget");
  call.services.directory_changed();
  return Reply{.status = 204};
}

constexpr int kNotFound[] = {404};
constexpr int kUpdated[] = {200};
constexpr std::string_view kSettingsTag = "settings";
constexpr std::string_view kBudgetsTag = "org budgets";

constexpr Endpoint settings_row(Method method, std::string_view path) {
  return {.method = method,
          .path = path,
          .tag = kSettingsTag,
          .summary = "Change the organization's settings",
          .access = Access::kAdmin,
          .body = &kChange,
          .reply = &kSettings,
          .run = change_settings};
}
constexpr Endpoint kEndpoints[] = {
    settings_row(Method::kPut, "/v1/dashboard/settings"),
    {.method = Method::kGet,
     .path = "/v1/settings",
     .tag = kSettingsTag,
     .summary = "The organization's settings",
     .access = Access::kMember,
     .reply = &kSettings,
     .run = show_settings},
    settings_row(Method::kPut, "/v1/settings"),
    settings_row(Method::kPatch, "/v1/settings"),
    {.method = Method::kGet,
     .path = "/v1/org/budgets",
     .tag = kBudgetsTag,
     .summary = "The organization's budgets and what is used of them",
     .access = Access::kMember,
     .reply = &kBudgetList,
     .run = list_budgets},
    {.method = Method::kPost,
     .path = "/v1/org/budgets",
     .tag = kBudgetsTag,
     .summary = "Set the budget of a type and period",
     .access = Access::kAdmin,
     .body = &kPut,
     .status = 201,
     .reply = &kBudget,
     .also = kUpdated,
     .run = put_budget},
    {.method = Method::kDelete,
     .path = "/v1/org/budgets/{budget_id}",
     .tag = kBudgetsTag,
     .summary = "Take a budget away",
     .access = Access::kAdmin,
     .status = 204,
     .errors = kNotFound,
     .run = drop_budget},
};

}  // namespace

std::span<const Endpoint> organization_endpoints() {
  return kEndpoints;
}

}  // namespace kavach::http
