// Runs: what belongs together under one run id, from the rows that ingest keeps up to date.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sink/store/control/control_store.h"

namespace kavach::sink {

struct RunRow {
  std::string id, agent_name;
  std::string models;  // a JSON list of texts
  WallMicros first_event = 0, last_event = 0;
  bool last_is_error = false;
  std::int64_t events = 0, errors = 0, input_tokens = 0, output_tokens = 0, llm_duration_ms = 0;
  std::int64_t cost = 0;  // nano-dollars
};
struct RunPage {
  std::vector<RunRow> runs;
  std::int64_t total = 0;  // of all pages
};
// Newest first.
StoreResult<RunPage> runs_of_agent(ControlStore& store, std::string_view org_id, std::string_view agent_name,
                                   std::int64_t limit, std::int64_t offset);
StoreResult<std::optional<RunRow>> find_run(ControlStore& store, std::string_view org_id,
                                            std::string_view run_id);

}  // namespace kavach::sink
