// Fleet: agents of some organizations over some days, whose events come out in the order of time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "engine/event.h"
#include "engine/ids.h"

namespace kavach::bench {

struct FleetOptions {
  std::size_t events = 100'000;
  std::size_t orgs = 50;
  int days = 30;
};

struct FleetOrg {
  Uuid id, project_id;
};

class Fleet {
 public:
  // The first organization sends a fifth of all events. REQUIRES: as many as the options say.
  Fleet(const FleetOptions& options, std::vector<FleetOrg> orgs, WallMicros until);

  std::size_t events() const noexcept;
  // The next batches, of about so many events; they are valid until the next call. False when there are none.
  bool next(std::size_t events, std::vector<Batch>& batches);

 private:
  // An agent's events come at even distances; so many of them are a run, and fewer a batch.
  struct Agent {
    FleetOrg org;
    std::string name;
    std::size_t number, events, sent = 0;
    std::string run = {};
  };
  Batch batch_of(Agent& agent, std::size_t count);
  std::string_view keep(std::string text) { return texts_.emplace_back(std::move(text)); }
  WallMicros time_of(const Agent& agent, std::size_t event) const noexcept;

  const WallMicros since_, until_;
  std::vector<Agent> agents_;
  Random random_{1};
  std::deque<std::string> texts_;  // what the events' views point into; a deque never moves them
  std::size_t under_way_ = 0;      // events that next() has given out
};

}  // namespace kavach::bench
