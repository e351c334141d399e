#include "sink/store/control/runs.h"

#include <utility>

namespace kavach::sink {
namespace {

#define KAVACH_RUN_COLUMNS                                                                          \
  "SELECT run_id, agent_name, models, first_event_us, last_event_us, last_is_error, total_events, " \
  "error_count, input_tokens, output_tokens, llm_duration_ms, cost_nano FROM runs "

RunRow run_in(const Statement::Rows& row) {
  return {.id = std::string(row.text(0)),
          .agent_name = std::string(row.text(1)),
          .models = std::string(row.text(2)),
          .first_event = row.integer(3),
          .last_event = row.integer(4),
          .last_is_error = row.integer(5) != 0,
          .events = row.integer(6),
          .errors = row.integer(7),
          .input_tokens = row.integer(8),
          .output_tokens = row.integer(9),
          .llm_duration_ms = row.integer(10),
          .cost = row.integer(11)};
}

}  // namespace

StoreResult<RunPage> runs_of_agent(ControlStore& store, std::string_view org_id, std::string_view agent_name,
                                   std::int64_t limit, std::int64_t offset) {
  RunPage page;
  auto read = store.each(
      "SELECT total_runs FROM agents WHERE org_id = ?1 AND name = ?2",
      [&page](const Statement::Rows& row) { page.total = row.integer(0); }, org_id, agent_name);
  if (!read) return read.error();
  read = store.each(
      KAVACH_RUN_COLUMNS
      "WHERE org_id = ?1 AND agent_name = ?2 ORDER BY first_event_us DESC, run_id LIMIT ?3 OFFSET ?4",
      [&page](const Statement::Rows& row) { page.runs.push_back(run_in(row)); }, org_id, agent_name, limit,
      offset);
  if (!read) return read.error();
  return page;
}

StoreResult<std::optional<RunRow>> find_run(ControlStore& store, std::string_view org_id,
                                            std::string_view run_id) {
  std::optional<RunRow> found;
  auto read = store.each(
      KAVACH_RUN_COLUMNS "WHERE org_id = ?1 AND run_id = ?2",
      [&found](const Statement::Rows& row) { found = run_in(row); }, org_id, run_id);
  if (!read) return read.error();
  return found;
}

}  // namespace kavach::sink
