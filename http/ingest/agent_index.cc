#include "http/ingest/agent_index.h"

#include <bit>

#include "engine/bounds.h"
#include "quota/limits.h"

namespace kavach::http {
namespace {

constexpr std::size_t kSlots = std::size_t{2} * bounds::kBatchEventsMax;
static_assert(std::has_single_bit(kSlots), "positions are masked");
static_assert(bounds::kBatchEventsMax < 0xffff, "an index and one more must fit in 16 bits");

}  // namespace

void AgentIndex::list(const Batch& batch, std::vector<std::uint64_t>& agents,
                      std::vector<std::uint32_t>& first_events, std::vector<std::uint16_t>& agent_of) {
  agents.clear();
  first_events.clear();
  agent_of.clear();
  std::string_view previous;
  std::uint16_t index = 0;
  for (std::uint32_t i = 0; i < batch.events.size(); ++i) {
    const std::string_view name = batch.events[i].agent_name;
    if (i == 0 || name != previous) {
      previous = name;
      const std::size_t known = agents.size();
      index = find_or_add(quota::agent_fingerprint(batch.org_id, name), agents);
      if (agents.size() > known) first_events.push_back(i);
      if (agents.size() == 2 && known == 1) agent_of.assign(i, 0);
    }
    if (agents.size() > 1) agent_of.push_back(index);
  }
  if (slots_.empty()) return;
  for (const std::uint64_t fingerprint : agents) {
    for (std::size_t slot = fingerprint & (kSlots - 1); slots_[slot] != 0; slot = (slot + 1) & (kSlots - 1)) {
      slots_[slot] = 0;
    }
  }
}

std::uint16_t AgentIndex::find_or_add(std::uint64_t fingerprint, std::vector<std::uint64_t>& agents) {
  if (agents.empty()) {
    agents.push_back(fingerprint);
    return 0;
  }
  if (agents.size() == 1 && agents.front() == fingerprint) return 0;
  const auto insert = [&](std::uint64_t wanted, std::uint16_t number) {
    std::size_t slot = wanted & (kSlots - 1);
    while (slots_[slot] != 0 && agents[slots_[slot] - 1U] != wanted) slot = (slot + 1) & (kSlots - 1);
    if (slots_[slot] == 0) slots_[slot] = static_cast<std::uint16_t>(number + 1);
    return static_cast<std::uint16_t>(slots_[slot] - 1);
  };
  if (agents.size() == 1) {
    // The second name: from here on the table is needed.
    slots_.resize(kSlots);
    insert(agents.front(), 0);
  }
  const std::uint16_t found = insert(fingerprint, static_cast<std::uint16_t>(agents.size()));
  if (found == agents.size()) agents.push_back(fingerprint);
  return found;
}

}  // namespace kavach::http
