// Event and Batch: the domain's plain types, as they travel from the parser to the journal.
//
// An Event holds views; whoever made the Batch says which bytes they point into and for how long.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "engine/ids.h"
#include "engine/money.h"

namespace kavach {

// The documented system that an event came through (column `ingest_system`).
enum class IngestSystem : std::uint8_t { kAgentKavach = 0, kLlmGovernor = 1, kAgentCost = 2 };

// One LLM call's usage. An absent optional string is empty: an empty key, run id or prompt means none.
struct Event {
  std::string_view agent_name;
  std::string_view provider;
  std::string_view model;
  std::string_view idempotency_key;
  std::string_view run_id;
  std::string_view prompt;
  WallMicros timestamp = 0;
  std::int64_t input_tokens = 0;
  std::int64_t output_tokens = 0;
  std::int64_t duration_ms = 0;
  NanoDollars cost = 0;
  bool is_error = false;
  bool partial = false;

  friend bool operator==(const Event&, const Event&) = default;
};

// The events of one request, in the order in which they were sent.
struct Batch {
  Uuid id;  // UUIDv7, from which the ids of its events follow (event_id)
  Uuid org_id;
  Uuid project_id;
  WallMicros received_at = 0;
  IngestSystem system = IngestSystem::kAgentKavach;
  std::vector<Event> events;
};

}  // namespace kavach
