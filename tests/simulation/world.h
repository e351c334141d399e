// World: a fleet of nodes, their authority and a bad network in one thread, with virtual time and one seed.
//
// Nodes are the real Admission, Ledger and LeaseKeeper; the authority is the real FleetState. Everything
// between them (network, journal, clocks, crashes) is made up here and draws from one random stream, so that
// a seed is a history. What must hold is checked at every step; the first violation is kept as a sentence.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include "engine/ids.h"
#include "quota/admission.h"
#include "quota/lease_keeper.h"

namespace kavach::quota::simulation {

struct Options {
  std::uint64_t seed = 1;
  std::uint32_t nodes = 3;
  std::int64_t events_per_day = 2'000;
  std::int64_t agents_max = 20;
  std::int64_t burst_per_minute = kUnlimited;
  std::int64_t budget = 0;                          // nano-dollars a day; 0: none. An event costs one.
  WallMicros start = 0;                             // the authority's clock
  std::int64_t faults_us = 40 * kMicrosPerSecond;   // trouble until then
  std::int64_t length_us = 120 * kMicrosPerSecond;  // the load goes on until then
  bool faults = true;
  bool loses_data = true;
};

class World {
 public:
  explicit World(const Options& options);
  ~World();
  // Runs to the end; returns what was violated, empty when nothing was.
  std::string run();

  std::int64_t durable_events() const;  // of all days
  std::int64_t durable_today() const;   // of the authority's last day
  std::int64_t permanent_refusals() const { return permanent_refusals_; }
  std::int64_t overshoot() const;           // of the budget
  std::int64_t admitted_in_window() const;  // at the end, within 60 s
  std::uint64_t crashes() const { return crashes_; }

 private:
  struct Node;
  struct Batch;
  struct Sent {
    std::vector<std::uint64_t> ids;
    std::uint64_t agent = 0;
  };
  struct Event {
    std::int64_t at;
    std::uint64_t order;
    std::function<void()> run;
    bool operator>(const Event& other) const { return at != other.at ? at > other.at : order > other.order; }
  };

  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(random_.next() % static_cast<std::uint64_t>(bound));
  }
  bool chance(double probability) {
    return static_cast<double>(random_.next() >> 11) * 0x1p-53 < probability;
  }
  void at(std::int64_t when, std::function<void()> run);
  void after(std::int64_t delay, std::function<void()> run) { at(now_ + delay, std::move(run)); }
  bool has_daily_limit() const { return options_.events_per_day != kUnlimited; }
  WallMicros authority_time() const { return options_.start + now_; }
  void violated(const std::string& what);

  void start_node(Node& node);
  void crash(Node& node);
  void connect(Node& node);
  void ask_learning(Node& node);
  void tick(Node& node);
  Sent new_batch();
  void offer_load();
  void decide(Node& node, std::unique_ptr<Batch> batch);
  void decided(Batch& batch);
  void write(Node& node, const Batch& batch, std::int64_t day);
  void make_durable(Node& node, Batch* batch);
  void check_permanent_refusal(const Node& node);
  std::int64_t out_of_reach() const;
  void check_agents();
  void check_burst(std::int64_t events);
  void give_back_burst(const Batch& batch);
  void check_budget();
  void check_limit(std::int64_t day);
  void note_unheard();
  void check_totals();
  void lose_everything();
  void begin_epoch();
  void make_trouble();
  void deliver(std::int64_t& last_arrival, std::function<void()> message);
  void receive(Node& node, std::uint64_t boot, const RenewRequest& request);
  void receive(Node& node, std::uint64_t boot, const AgentsRequest& request);

  Options options_;
  Random random_;
  std::int64_t now_ = 0;
  std::uint64_t order_ = 0;
  std::uint64_t last_event_ = 0;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::vector<std::unique_ptr<Node>> nodes_;

  // The authority.
  std::unique_ptr<FleetState> state_;
  std::unique_ptr<FleetState> snapshot_;
  std::map<std::uint64_t, WallMicros> agents_;
  std::map<std::uint64_t, WallMicros> agents_snapshot_;
  EpochClock epoch_clock_;
  std::uint64_t connections_epoch_ = 1;
  std::uint64_t losses_ = 0;  // of data
  std::int64_t stalled_until_ = 0;
  bool was_learning_ = false;
  std::deque<std::pair<std::int64_t, std::int64_t>> window_;  // when, and how many events were admitted
  std::int64_t in_window_ = 0;
  std::int64_t budget_reached_ = 0;  // when; 0: not yet
  bool lost_data_ = false;

  std::map<std::int64_t, std::int64_t> durable_by_day_;  // of leases
  std::map<std::int64_t, std::int64_t> unheard_by_day_;  // after two losses at once
  std::int64_t permanent_refusals_ = 0;
  std::uint64_t crashes_ = 0;
  std::string violation_;
};

}  // namespace kavach::quota::simulation
