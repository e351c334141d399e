#include "bench/fill/fleet.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

namespace kavach::bench {
namespace {

constexpr std::size_t kAgentsPerOrg = 5;
constexpr std::size_t kRunEvents = 50;
constexpr std::size_t kBatchEvents = 10;
// Of all events, those of the organization that is read: one in so many.
constexpr std::size_t kReadShare = 5;

struct Model {
  std::string_view name, provider;
};
// An agent uses two neighbours.
constexpr Model kModels[] = {{"gpt-4o", "openai"},
                             {"claude-sonnet-4", "anthropic"},
                             {"gemini-2.5-pro", "google"},
                             {"mistral-large", "mistral"}};

}  // namespace

Fleet::Fleet(const FleetOptions& options, std::vector<FleetOrg> orgs, WallMicros until)
    : since_(until - options.days * 24 * kMicrosPerHour), until_(until) {
  const std::size_t of_read = options.events / kReadShare;
  const std::size_t of_other = (options.events - of_read) / (orgs.size() - 1);
  for (std::size_t org = 0; org < orgs.size(); ++org) {
    const std::size_t events = (org == 0 ? of_read : of_other) / kAgentsPerOrg;
    for (std::size_t i = 0; i < kAgentsPerOrg; ++i) {
      agents_.push_back({.org = orgs[org],
                         .name = fmt::format("agent-{}", i),
                         .number = i,
                         .events = std::max(events / kBatchEvents, std::size_t{1}) * kBatchEvents});
    }
  }
}

std::size_t Fleet::events() const noexcept {
  std::size_t events = 0;
  for (const Agent& agent : agents_) events += agent.events;
  return events;
}

WallMicros Fleet::time_of(const Agent& agent, std::size_t event) const noexcept {
  const double part = static_cast<double>(event + 1) / static_cast<double>(agent.events);
  return since_ + static_cast<WallMicros>(part * static_cast<double>(until_ - since_)) - 1;
}

Batch Fleet::batch_of(Agent& agent, std::size_t count) {
  const auto below = [this](std::uint64_t bound) { return random_.next() % bound; };
  Batch batch;
  batch.org_id = agent.org.id;
  batch.project_id = agent.org.project_id;
  batch.received_at = time_of(agent, agent.sent + count - 1) + 1;
  batch.id = make_uuid7(batch.received_at, random_);
  for (std::size_t i = 0; i < count; ++i, ++agent.sent) {
    if (agent.sent % kRunEvents == 0) agent.run = make_uuid7(time_of(agent, agent.sent), random_).text();
    const Model& model = kModels[(agent.number + agent.sent % 2) % std::size(kModels)];
    Event& event = batch.events.emplace_back();
    event.agent_name = agent.name;
    event.provider = model.provider;
    event.model = model.name;
    event.run_id = keep(agent.run);
    event.timestamp = time_of(agent, agent.sent);
    event.input_tokens = static_cast<std::int64_t>(50 + below(8000));
    event.output_tokens = static_cast<std::int64_t>(10 + below(2000));
    event.duration_ms = static_cast<std::int64_t>(200 + below(9000));
    event.cost = event.input_tokens * 2'500 + event.output_tokens * 10'000;
    event.is_error = below(50) == 0;
  }
  return batch;
}

bool Fleet::next(std::size_t events, std::vector<Batch>& batches) {
  batches.clear();
  texts_.clear();
  under_way_ += events;
  // Every agent up to the same moment.
  const double part = std::min(1.0, static_cast<double>(under_way_) / static_cast<double>(this->events()));
  for (Agent& agent : agents_) {
    const auto due = static_cast<std::size_t>(part * static_cast<double>(agent.events));
    while (agent.sent + kBatchEvents <= due) batches.push_back(batch_of(agent, kBatchEvents));
  }
  return !batches.empty() || part < 1;
}

}  // namespace kavach::bench
