// AgentIndex: the agents that a batch names, each once, as fingerprints.
//
// A batch of the real SDK names one agent, a replayed one a few, a hostile one as many as it has events: all
// are linear. One per shard, reused by every batch; owner thread only.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/event.h"

namespace kavach::http {

class AgentIndex {
 public:
  // `agents`: fingerprints in order of appearance; `first_events`: the event that names each; `agent_of`: of
  // each event, an index into `agents`, left empty when there is but one. All three are cleared first.
  void list(const Batch& batch, std::vector<std::uint64_t>& agents, std::vector<std::uint32_t>& first_events,
            std::vector<std::uint16_t>& agent_of);

 private:
  std::uint16_t find_or_add(std::uint64_t fingerprint, std::vector<std::uint64_t>& agents);

  // Open addressing over `agents`; index + 1, 0: empty. Cleared by list() through what it filled.
  std::vector<std::uint16_t> slots_;
};

}  // namespace kavach::http
