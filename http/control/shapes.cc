#include "http/control/shapes.h"

#include "http/control/percent.h"

namespace kavach::http {
namespace {

constexpr std::string_view kBudgetPrefix = "budget_";
constexpr std::string_view kEventPrefix = "evt_";

constexpr Field kBudgetFields[] = {{.name = "id", .required = true},
                                   {.name = "agent_name", .required = true, .nullable = true},
                                   {.name = "budget_type", .required = true},
                                   {.name = "period", .required = true},
                                   {.name = "limit_value", .kind = FieldKind::kNumber, .required = true},
                                   {.name = "current_value", .kind = FieldKind::kNumber, .required = true},
                                   {.name = "usage_pct", .kind = FieldKind::kNumber, .required = true},
                                   {.name = "unit", .required = true},
                                   {.name = "source", .required = true},
                                   {.name = "created_at", .kind = FieldKind::kTimestamp, .required = true},
                                   {.name = "updated_at", .kind = FieldKind::kTimestamp, .required = true}};
constexpr Field kBudgetListFields[] = {
    {.name = "budgets", .kind = FieldKind::kList, .required = true, .item = &kBudget},
    {.name = "total", .kind = FieldKind::kInteger, .required = true}};
constexpr Field kEventFields[] = {{.name = "id", .required = true},
                                  {.name = "agent_name", .required = true},
                                  {.name = "provider", .required = true},
                                  {.name = "model", .required = true},
                                  {.name = "input_tokens", .kind = FieldKind::kInteger, .required = true},
                                  {.name = "output_tokens", .kind = FieldKind::kInteger, .required = true},
                                  {.name = "cost", .kind = FieldKind::kNumber, .required = true},
                                  {.name = "duration_ms", .kind = FieldKind::kInteger, .required = true},
                                  {.name = "status", .required = true},
                                  {.name = "run_id", .required = true, .nullable = true},
                                  {.name = "prompt", .required = true, .nullable = true},
                                  {.name = "timestamp", .kind = FieldKind::kTimestamp, .required = true}};

}  // namespace

constinit const Schema kBudget{"Budget", kBudgetFields};
constinit const Schema kBudgetList{"Budgets", kBudgetListFields};
constinit const Schema kEvent{"Event", kEventFields};

std::string_view unit_of(std::string_view budget_type) {
  if (budget_type == "cost") return "usd";
  if (budget_type == "calls" || budget_type == "loops") return budget_type;
  return budget_type == "duration" ? "ms" : "tokens";
}

std::string_view budget_id(std::string_view id) {
  if (id.starts_with(kBudgetPrefix)) id.remove_prefix(kBudgetPrefix.size());
  return id;
}

void render(const sink::BudgetRow& budget, JsonOut& out) {
  out.begin()
      .text("id", std::string(kBudgetPrefix) + budget.id)
      .text_or_null("agent_name", budget.agent_name)
      .text("budget_type", budget.type)
      .text("period", budget.period)
      .number("limit_value", budget.limit)
      .number("current_value", budget.used)
      .number("usage_pct", percent(budget.used, budget.limit))
      .text("unit", budget.unit)
      .text("source", budget.source)
      .time("created_at", budget.created_at)
      .time("updated_at", budget.updated_at)
      .end();
}

Reply budgets_reply(std::span<const sink::BudgetRow> budgets) {
  JsonOut out;
  out.begin().key("budgets").begin_list();
  for (const sink::BudgetRow& budget : budgets) render(budget, out);
  out.end_list().integer("total", static_cast<std::int64_t>(budgets.size())).end();
  return {.body = out.take()};
}

void render_events(const sink::EventPage& page, JsonOut& out) {
  out.key("events").begin_list();
  for (const sink::EventRow& event : page.events) {
    out.begin()
        .text("id", std::string(kEventPrefix) + event.id)
        .text("agent_name", event.agent_name)
        .text("provider", event.provider)
        .text("model", event.model)
        .integer("input_tokens", event.input_tokens)
        .integer("output_tokens", event.output_tokens)
        .usd("cost", event.cost)
        .integer("duration_ms", event.duration_ms)
        .text("status", event.is_error ? "error" : "success")
        .text_or_null("run_id", event.run_id)
        .text_or_null("prompt", event.prompt)
        .time("timestamp", event.timestamp)
        .end();
  }
  out.end_list();
}

}  // namespace kavach::http
