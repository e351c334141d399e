// The endpoints of runs: what an agent did from its first call to its last (contract/agentkavach.md section
// 7).
#include "sink/store/control/runs.h"
#include "http/control/endpoint.h"
#include "http/control/shapes.h"
#include "sink/store/control/agents.h"

namespace kavach::http {
namespace {

using sink::RunRow;

constexpr WallMicros kIdleMicros = 300 * kMicrosPerSecond;  // without an event for so long it has ended

constexpr Field kRunFields[] = {
    {.name = "run_id", .required = true},
    {.name = "agent_name", .required = true},
    {.name = "status", .required = true, .help = "running, completed or failed"},
    {.name = "started_at", .kind = FieldKind::kTimestamp, .required = true},
    {.name = "ended_at", .kind = FieldKind::kTimestamp, .required = true, .nullable = true},
    {.name = "last_event_at", .kind = FieldKind::kTimestamp, .required = true},
    {.name = "duration_ms", .kind = FieldKind::kInteger, .required = true},
    {.name = "total_events", .kind = FieldKind::kInteger, .required = true},
    {.name = "total_cost", .kind = FieldKind::kNumber, .required = true},
    {.name = "input_tokens", .kind = FieldKind::kInteger, .required = true},
    {.name = "output_tokens", .kind = FieldKind::kInteger, .required = true},
    {.name = "llm_duration_ms", .kind = FieldKind::kInteger, .required = true},
    {.name = "error_count", .kind = FieldKind::kInteger, .required = true},
    {.name = "models", .kind = FieldKind::kTexts, .required = true}};
constexpr Schema kRun{"Run", kRunFields};
constexpr Field kRunsFields[] = {{.name = "runs", .kind = FieldKind::kList, .required = true, .item = &kRun},
                                 {.name = "total", .kind = FieldKind::kInteger, .required = true}};
constexpr Schema kRuns{"Runs", kRunsFields};
constexpr Field kRunEventsFields[] = {
    {.name = "run_id", .required = true},
    {.name = "events", .kind = FieldKind::kList, .required = true, .item = &kEvent},
    {.name = "total", .kind = FieldKind::kInteger, .required = true}};
constexpr Schema kRunEvents{"RunEvents", kRunEventsFields};

constexpr Field kRunsQueryFields[] = {
    {.name = "limit", .kind = FieldKind::kInteger, .at_least = 1, .at_most = 200, .preset = "50"},
    {.name = "offset", .kind = FieldKind::kInteger, .at_least = 0, .preset = "0"}};
constexpr Schema kRunsQuery{"RunsQuery", kRunsQueryFields};
constexpr Field kRunEventsQueryFields[] = {
    {.name = "limit", .kind = FieldKind::kInteger, .at_least = 1, .at_most = 1000, .preset = "500"},
    {.name = "offset", .kind = FieldKind::kInteger, .at_least = 0, .preset = "0"}};
constexpr Schema kRunEventsQuery{"RunEventsQuery", kRunEventsQueryFields};

void render(const RunRow& run, WallMicros now, JsonOut& out) {
  const bool running = run.last_event > now - kIdleMicros;
  out.begin()
      .text("run_id", run.id)
      .text("agent_name", run.agent_name)
      .text("status", running             ? "running"
                      : run.last_is_error ? "failed"
                                          : "completed")
      .time("started_at", run.first_event)
      .time("ended_at", running ? std::nullopt : std::optional(run.last_event))
      .time("last_event_at", run.last_event)
      .integer("duration_ms", (run.last_event - run.first_event) / kMicrosPerMilli)
      .integer("total_events", run.events)
      .usd("total_cost", run.cost)
      .integer("input_tokens", run.input_tokens)
      .integer("output_tokens", run.output_tokens)
      .integer("llm_duration_ms", run.llm_duration_ms)
      .integer("error_count", run.errors)
      .key("models")
      .raw(run.models)
      .end();
}

Outcome list_of_agent(Call& call) {
  auto page = sink::runs_of_agent(call.store, call.caller.org_id, call.path[0], call.query.integer("limit"),
                                  call.query.integer("offset"));
  if (!page) return page.error();
  JsonOut out;
  out.begin().key("runs").begin_list();
  for (const RunRow& run : page->runs) render(run, call.services.clock.wall(), out);
  out.end_list().integer("total", page->total).end();
  return Reply{.body = out.take()};
}

Outcome show(Call& call) {
  auto run = sink::find_run(call.store, call.caller.org_id, call.path[0]);
  if (!run) return run.error();
  if (!*run) return not_found("Run");
  JsonOut out;
  render(**run, call.services.clock.wall(), out);
  return Reply{.body = out.take()};
}

Outcome list_events(Call& call) {
  auto run = sink::find_run(call.store, call.caller.org_id, call.path[0]);
  if (!run) return run.error();
  if (!*run) return not_found("Run");
  auto page = sink::run_events(call.store, call.caller.org_id, (*run)->id, call.query.integer("limit"),
                               call.query.integer("offset"));
  if (!page) return page.error();
  JsonOut out;
  out.begin().text("run_id", (*run)->id);
  render_events(*page, out);
  out.integer("total", page->total).end();
  return Reply{.body = out.take()};
}

constexpr int kNotFound[] = {404};
constexpr std::string_view kTag = "runs";
constexpr Endpoint kEndpoints[] = {
    {.method = Method::kGet,
     .path = "/v1/agents/{name}/runs",
     .tag = kTag,
     .summary = "An agent's runs, newest first",
     .access = Access::kMember,
     .query = &kRunsQuery,
     .reply = &kRuns,
     .errors = kNotFound,
     .run = of_known_agent<list_of_agent>},
    {.method = Method::kGet,
     .path = "/v1/runs/{run_id}",
     .tag = kTag,
     .summary = "A run",
     .access = Access::kMember,
     .reply = &kRun,
     .errors = kNotFound,
     .run = show},
    {.method = Method::kGet,
     .path = "/v1/runs/{run_id}/events",
     .tag = kTag,
     .summary = "A run's events, oldest first",
     .access = Access::kMember,
     .query = &kRunEventsQuery,
     .reply = &kRunEvents,
     .errors = kNotFound,
     .run = list_events},
};

}  // namespace

std::span<const Endpoint> run_endpoints() {
  return kEndpoints;
}

}  // namespace kavach::http
