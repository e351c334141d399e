#include "sink/store/event_rows.h"

namespace kavach::sink {

std::string_view name_of(IngestSystem system) noexcept {
  switch (system) {
    case IngestSystem::kAgentKavach:
      return "ak";
    case IngestSystem::kLlmGovernor:
      return "lg";
    case IngestSystem::kAgentCost:
      return "ac";
  }
  return "ak";
}

std::string_view metadata_of(const Event& event) noexcept {
  return event.partial ? R"({"partial":true})" : std::string_view{};
}

}  // namespace kavach::sink
