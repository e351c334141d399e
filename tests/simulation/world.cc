#include "tests/simulation/world.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "engine/money.h"

namespace kavach::quota::simulation {
namespace {

const Uuid kOrg = *Uuid::parse("01900000-0000-7000-8000-00000000000a");
constexpr std::int64_t kMilli = kMicrosPerMilli;
constexpr std::int64_t kSecond = kMicrosPerSecond;
// Longer than in the daemon: here messages are lost one by one, there only with their connection, and a new
// connection restates everything at once.
constexpr std::int64_t kLearn = 6 * kSecond;
constexpr std::int64_t kSlowest = 300 * kMilli;  // of a message
constexpr std::int64_t kCalm = 15 * kSecond;     // by then what the trouble left behind is over
// Batches that clients may still send once more.
constexpr std::size_t kRecentMax = 16;

DedupKey key_of(std::uint64_t event) {
  return {event * 0x9e3779b97f4a7c15ULL, event << 40};
}

}  // namespace

struct World::Batch : AdmissionRequest {
  World* world = nullptr;
  Node* node = nullptr;
  std::uint64_t boot = 0;
  std::vector<kavach::Event> numbers;
  std::int64_t admitted_at = 0;
  std::vector<std::uint64_t> ids;  // of its events, for as often as it is sent
};

struct World::Node final : Authority {
  World& world;
  std::uint32_t index;
  // What survives a crash: the journal, as the number of durable events by day of their lease, and money by
  // day.
  std::map<std::int64_t, Usage> durable;
  std::map<std::uint64_t, WallMicros> agents;
  std::map<std::uint64_t, WallMicros> events;  // ids
  // What does not.
  bool up = false;
  std::uint64_t boot = 0;  // of the process; the keeper's may be corrected
  std::int64_t skew = 0;   // of the wall clock
  double drift = 1;        // of the steady clock
  std::unique_ptr<LeaseKeeper> keeper;
  std::unique_ptr<Ledger> ledger;
  std::unique_ptr<Admission> admission;
  std::vector<std::unique_ptr<Batch>> batches;
  std::vector<Sent> recent;               // the clients' own
  std::map<Batch*, std::int64_t> day_of;  // of admitted batches: the day of their lease
  std::int64_t quiet_until = 0;           // no client sends
  std::int64_t last_asked = 0;            // when the last message to the authority arrives, or arrived
  std::int64_t last_answered = 0;         // and the last one from it
  std::uint64_t epoch = 0;                // as of the last answer on this connection
  std::int64_t answered_day = -1;         // of the authority's last answer
  std::int64_t out_of_reach = 0;          // when the authority gave its last answer

  Node(World& in, std::uint32_t number) : world(in), index(number) {}
  Now clock() const {
    return {.wall = world.authority_time() + skew,
            .mono = static_cast<MonoMicros>(static_cast<double>(world.now_) * drift) + 1};
  }
  OrgLedger& org() { return ledger->org(kOrg); }

  void send(OrgLedger&, const RenewRequest& request) override {
    world.deliver(last_asked, [this, from = boot, request] { world.receive(*this, from, request); });
  }
  void send(OrgLedger&, const AgentsRequest& request) override {
    world.deliver(last_asked, [this, from = boot, request] { world.receive(*this, from, request); });
  }
};

World::World(const Options& options) : options_(options), random_(options.seed), epoch_clock_(kLearn) {
  state_ = std::make_unique<FleetState>(FleetState::Options{.burst_slack_s = 2});
  for (std::uint32_t i = 0; i < options.nodes; ++i) {
    nodes_.push_back(std::make_unique<Node>(*this, i));
    Node& node = *nodes_.back();
    node.skew = below(4 * kSecond) - 2 * kSecond;
    node.drift = 1 + static_cast<double>(below(2001) - 1000) * 1e-7;
    start_node(node);
  }
  offer_load();
  if (options_.faults) make_trouble();
}

World::~World() = default;

void World::at(std::int64_t when, std::function<void()> run) {
  events_.push({when, ++order_, std::move(run)});
}

void World::violated(const std::string& what) {
  if (violation_.empty()) violation_ = fmt::format("seed {}, {} ms: {}", options_.seed, now_ / kMilli, what);
}

std::string World::run() {
  while (!events_.empty() && violation_.empty()) {
    Event next = events_.top();
    events_.pop();
    if (next.at > options_.length_us) break;
    now_ = next.at;
    next.run();
  }
  if (violation_.empty()) check_totals();
  return violation_;
}

// --- nodes -------------------------------------------------------------------------------------------------

void World::start_node(Node& node) {
  node.up = true;
  ++node.boot;
  LeaseKeeper::Options keeping;
  keeping.node = node.index + 1;
  // A start is numbered by the node's clock, which may have been set back.
  keeping.boot = static_cast<std::uint64_t>(node.clock().wall + (chance(0.2) ? -10 * kSecond : 0));
  node.keeper = std::make_unique<LeaseKeeper>(
      keeping, node, [&node](OrgLedger& org, Now now) { node.admission->resume(org, now); });
  node.ledger = std::make_unique<Ledger>(LimitModes{}, *node.keeper);
  Policy policy;
  policy.org = kOrg;
  policy.events_per_day = options_.events_per_day;
  policy.agents_max = options_.agents_max;
  policy.burst_per_minute = options_.burst_per_minute;
  if (options_.budget > 0) policy.budgets = {{BudgetType::kCost, BudgetPeriod::kDaily, options_.budget}};
  node.ledger->install(std::make_shared<PolicyTable>(std::vector<Policy>{std::move(policy)}));
  node.admission = std::make_unique<Admission>(DedupTable::Options{.keys_max = 20'000}, *node.ledger);
  // The journal says of which day a batch was, whatever the node's clock says now; its last two days are
  // restored.
  const auto skipped = static_cast<std::ptrdiff_t>(node.durable.size()) - 2;
  auto from = node.durable.begin();
  if (skipped > 0) std::advance(from, skipped);
  for (; from != node.durable.end(); ++from) {
    node.ledger->restore_usage(kOrg, BudgetPeriod::kDaily, from->first, from->second);
  }
  for (const auto& [agent, seen] : node.agents) node.ledger->restore_agent(kOrg, agent, seen);
  for (const auto& [event, seen] : node.events)
    node.admission->dedup().restore(key_of(event), seen, node.clock().wall);
  connect(node);
  tick(node);
  ask_learning(node);
}

void World::connect(Node& node) {
  if (!node.up || node.keeper->connected()) return;
  if (stalled_until_ > now_)
    return after(stalled_until_ - now_ + below(500 * kMilli), [this, &node] { connect(node); });
  node.epoch = 0;
  node.keeper->on_connected(node.clock());
}

// Each node asks once a second whether data was lost, as RedisAuthority does.
void World::ask_learning(Node& node) {
  const std::uint64_t boot = node.boot;
  deliver(node.last_asked, [this, &node, boot] {
    deliver(node.last_answered, [&node, boot, epoch = epoch_clock_.at(authority_time()).number] {
      if (!node.up || node.boot != boot || !node.keeper->connected()) return;
      const std::uint64_t known = std::exchange(node.epoch, epoch);
      if (known != 0 && known != epoch) node.keeper->on_forgotten(node.clock());
    });
  });
  after(kSecond, [this, &node, boot] {
    if (node.up && node.boot == boot) ask_learning(node);
  });
}

void World::tick(Node& node) {
  const std::uint64_t boot = node.boot;
  node.keeper->on_tick(node.clock());
  after(50 * kMilli, [this, &node, boot] {
    if (node.up && node.boot == boot) tick(node);
  });
}

void World::crash(Node& node) {
  if (!node.up) return;
  ++crashes_;
  // What it held is then known only as far as others had heard of it.
  if (epoch_clock_.at(authority_time()).learning) lost_data_ = true;
  // A batch that was on its way to the disk is durable or is not; nobody was told either way.
  for (const auto& [batch, day] : node.day_of) {
    if (chance(0.5)) write(node, *batch, day);
  }
  node.up = false;
  node.day_of.clear();
  node.batches.clear();
  node.admission.reset();
  node.ledger.reset();
  node.keeper.reset();
  after(below(10 * kSecond), [this, &node] { start_node(node); });
}

// --- load --------------------------------------------------------------------------------------------------

World::Sent World::new_batch() {
  Sent sent;
  for (std::int64_t i = 1 + below(20); i > 0; --i) sent.ids.push_back(++last_event_);
  sent.agent = static_cast<std::uint64_t>(1 + below(options_.agents_max * 2));
  return sent;
}

// Some are sent again: to the node that had them, soon or late, whatever it answered.
void World::offer_load() {
  Node& node = *nodes_[chance(0.6) ? 0 : static_cast<std::size_t>(below(options_.nodes))];
  if (node.up && now_ >= node.quiet_until) {
    auto batch = std::make_unique<Batch>();
    const bool again = !node.recent.empty() && chance(0.15);
    const Sent sent =
        again ? node.recent[static_cast<std::size_t>(below(std::ssize(node.recent)))] : new_batch();
    if (!again) node.recent.push_back(sent);
    if (node.recent.size() > kRecentMax) node.recent.erase(node.recent.begin());
    const std::size_t events = sent.ids.size();
    batch->world = this;
    batch->node = &node;
    batch->boot = node.boot;
    batch->numbers.resize(events);
    for (kavach::Event& event : batch->numbers) event.cost = 1;
    batch->events = batch->numbers;
    batch->ids = sent.ids;
    for (const std::uint64_t id : sent.ids) batch->keys.push_back(key_of(id));
    batch->org = kOrg;
    batch->now = node.clock();
    batch->agents = {sent.agent};
    batch->decided = [](AdmissionRequest& request) noexcept {
      auto& ours = static_cast<Batch&>(request);
      ours.world->decided(ours);
    };
    decide(node, std::move(batch));
  }
  after(1 + below(30 * kMilli), [this] { offer_load(); });
}

void World::decide(Node& node, std::unique_ptr<Batch> batch) {
  Batch& lent = *batch;
  node.batches.push_back(std::move(batch));
  node.admission->decide(lent);
}

void World::decided(Batch& batch) {
  Node& node = *batch.node;
  if (batch.verdict == Verdict::kRefused && batch.refusal.reason == Reason::kDailyLimit)
    check_permanent_refusal(node);
  if (batch.verdict == Verdict::kNothingToWrite && batch.rejected_events == 0) {
    for (const std::uint64_t id : batch.ids) {
      if (!node.events.contains(id)) violated(fmt::format("event {} was said to be stored, and is not", id));
    }
  }
  if (batch.verdict != Verdict::kAdmitted) {
    // Freed later: its memory is still in use further up.
    after(0, [&node, boot = batch.boot, gone = &batch] {
      if (node.boot == boot) std::erase_if(node.batches, [&](const auto& one) { return one.get() == gone; });
    });
    return;
  }
  batch.admitted_at = now_;
  check_burst(batch.admitted_events);
  check_budget();
  const std::int64_t day = node.org().day;
  node.day_of[&batch] = day;
  after(1 + below(20 * kMilli), [this, &node, boot = batch.boot, lent = &batch] {
    if (node.up && node.boot == boot) make_durable(node, lent);
  });
}

void World::write(Node& node, const Batch& batch, std::int64_t day) {
  node.durable[day].events += batch.admitted_events;
  node.durable[day].cost += batch.admitted_events;
  durable_by_day_[day] += batch.admitted_events;
  if (budget_reached_ == 0 && options_.budget > 0 && durable_by_day_[day] >= options_.budget)
    budget_reached_ = now_;
  for (const std::uint64_t agent : batch.agents) node.agents[agent] = node.clock().wall;
  for (std::size_t i = 0; i < batch.ids.size(); ++i) {
    if (batch.admitted[i] == 0) continue;
    if (!node.events.emplace(batch.ids[i], node.clock().wall).second)
      violated(fmt::format("event {} was admitted twice", batch.ids[i]));
  }
}

void World::make_durable(Node& node, Batch* batch) {
  const std::int64_t day = node.day_of.at(batch);
  const bool durable = !chance(options_.faults ? 0.05 : 0);
  if (durable) {
    write(node, *batch, day);
    check_limit(day);
    check_agents();
  } else {
    give_back_burst(*batch);
  }
  node.day_of.erase(batch);
  node.admission->settle(batch->claim, durable, node.clock());
  std::erase_if(node.batches, [&](const auto& one) { return one.get() == batch; });
}

// --- what must hold ----------------------------------------------------------------------------------------

// Whoever is told that the day's quota is used up is told the truth: what is not durable yet is held by a
// node that is down, where nobody can reach it.
void World::check_permanent_refusal(const Node& node) {
  ++permanent_refusals_;
  const std::int64_t durable = durable_by_day_[node.answered_day];
  if (durable + node.out_of_reach < options_.events_per_day && !lost_data_) {
    violated(fmt::format("refused for good with {} of {} durable and {} out of reach", durable,
                         options_.events_per_day, node.out_of_reach));
  }
}

// Held by nodes that are down, or were not heard of for as long as a lease lasts.
std::int64_t World::out_of_reach() const {
  std::int64_t sum = 0;
  for (const auto& node : nodes_) {
    if (!state_->is_expired(node->index + 1, authority_time())) continue;
    const auto durable = node->durable.find(state_->day());
    const std::int64_t own = durable == node->durable.end() ? 0 : durable->second.events;
    sum += std::max<std::int64_t>(0, state_->charged_to(node->index + 1) - own);
  }
  return sum;
}

void World::check_agents() {
  std::set<std::uint64_t> active;
  for (const auto& node : nodes_) {
    for (const auto& [agent, seen] : node->agents) active.insert(agent);
  }
  if (static_cast<std::int64_t>(active.size()) > options_.agents_max && !lost_data_) {
    violated(fmt::format("{} agents are active, the cap is {}", active.size(), options_.agents_max));
  }
}

// However the window is laid.
void World::check_burst(std::int64_t events) {
  window_.emplace_back(now_, events);
  in_window_ += events;
  while (window_.front().first <= now_ - 60 * kSecond) {
    in_window_ -= window_.front().second;
    window_.pop_front();
  }
  if (in_window_ > options_.burst_per_minute) {
    violated(fmt::format("{} events admitted within 60 s, the limit is {}", in_window_,
                         options_.burst_per_minute));
  }
}

// What failed was never admitted.
void World::give_back_burst(const Batch& batch) {
  for (auto& [when, events] : window_) {
    if (when != batch.admitted_at) continue;
    events -= batch.admitted_events;
    in_window_ -= batch.admitted_events;
    return;
  }
}

// The bound of quota/DESIGN.md: the node that spends tells it with its next renewal, the others hear of it
// with theirs.
void World::check_budget() {
  constexpr std::int64_t kRenewal = kSecond + 100 * kMilli + 2 * kSlowest;
  if (budget_reached_ == 0 || budget_reached_ < options_.faults_us + kCalm) return;
  if (now_ > budget_reached_ + 2 * kRenewal) {
    violated(fmt::format("admitted {} ms after the budget was used up", (now_ - budget_reached_) / kMilli));
  }
}

// Two losses at once are one too many: the authority's memory, and a node that had not yet said anew what it
// held. What the others had not heard of that node is handed out a second time; exactly that, and no more.
void World::check_limit(std::int64_t day) {
  const std::int64_t allowed = saturating_add(options_.events_per_day, unheard_by_day_[day]);
  if (durable_by_day_[day] > allowed) {
    violated(
        fmt::format("{} events admitted on day {}, the limit is {}", durable_by_day_[day], day, allowed));
  }
}

void World::note_unheard() {
  const std::int64_t today = state_->day();
  std::int64_t unheard = 0;
  for (const auto& node : nodes_) {
    const bool is_of_today = node->up && node->org().day == today;
    const std::int64_t own = is_of_today ? node->org().ceiling : node->durable[today].events;
    unheard += std::max<std::int64_t>(0, own - state_->charged_to(node->index + 1));
  }
  unheard_by_day_[today] += unheard;
  if (unheard > 0 && !lost_data_) violated(fmt::format("{} units are held and not on record", unheard));
}

void World::check_totals() {
  const std::int64_t today = state_->day();
  for (const auto& [day, events] : durable_by_day_) check_limit(day);
  // The load went on long enough after the last fault to use everything up, and it was used up.
  if (has_daily_limit() && durable_by_day_[today] < options_.events_per_day) {
    violated(fmt::format("{} events admitted although the load went on, the limit is {}",
                         durable_by_day_[today], options_.events_per_day));
  }
  // And every event is counted once: the authority's word is the sum of the nodes' journals.
  if (has_daily_limit() && state_->charged() != durable_by_day_[today]) {
    violated(fmt::format("the authority counts {}, the journals hold {}", state_->charged(),
                         durable_by_day_[today]));
  }
}

std::int64_t World::durable_events() const {
  std::int64_t sum = 0;
  for (const auto& [day, events] : durable_by_day_) sum += events;
  return sum;
}

std::int64_t World::durable_today() const {
  const auto found = durable_by_day_.find(state_->day());
  return found == durable_by_day_.end() ? 0 : found->second;
}

std::int64_t World::admitted_in_window() const {
  return in_window_;
}

std::int64_t World::overshoot() const {
  return std::max<std::int64_t>(0, durable_today() - options_.budget);
}

// --- trouble -----------------------------------------------------------------------------------------------

void World::lose_everything() {
  state_ = std::make_unique<FleetState>(FleetState::Options{.burst_slack_s = 2});
  agents_.clear();
  snapshot_.reset();  // the disk is lost too
}

void World::begin_epoch() {
  // What a node that is down held is then known only as far as others had heard of it.
  for (const auto& node : nodes_) lost_data_ = lost_data_ || !node->up;
  ++losses_;
  epoch_clock_.begin(authority_time());
}

void World::make_trouble() {
  if (now_ >= options_.faults_us) return;
  const std::int64_t kind = below(options_.loses_data ? 8 : 4);
  switch (kind) {
    case 0:
      crash(*nodes_[static_cast<std::size_t>(below(options_.nodes))]);
      break;
    case 1:
      stalled_until_ = now_ + below(6 * kSecond);
      break;
    case 2: {
      Node& node = *nodes_[static_cast<std::size_t>(below(options_.nodes))];
      if (node.up && node.keeper->connected()) {
        node.keeper->on_disconnected(node.clock());
        after(below(2 * kSecond), [this, &node] { connect(node); });
      }
      break;
    }
    case 3: {
      // The clients of one node, or all, have nothing to say.
      const std::int64_t until = now_ + below(20 * kSecond);
      const auto quiet = static_cast<std::size_t>(below(options_.nodes));
      const bool all = chance(0.5);
      for (std::size_t i = 0; i < nodes_.size(); ++i) {
        if (all || i == quiet) nodes_[i]->quiet_until = until;
      }
      break;
    }
    case 4:
      snapshot_ = std::make_unique<FleetState>(*state_);
      agents_snapshot_ = agents_;
      break;
    case 5:
    case 6: {
      // A restart, empty or with what it had saved: every connection breaks, and it is another epoch.
      if (kind == 5 || snapshot_ == nullptr) {
        lose_everything();
      } else {
        state_ = std::make_unique<FleetState>(*snapshot_);
        agents_ = agents_snapshot_;
      }
      begin_epoch();
      ++connections_epoch_;
      for (const auto& node : nodes_) {
        if (!node->up || !node->keeper->connected()) continue;
        node->keeper->on_disconnected(node->clock());
        after(below(kSecond), [this, gone = node.get()] { connect(*gone); });
      }
      break;
    }
    case 7:
      // Emptied while it runs.
      lose_everything();
      begin_epoch();
      break;
    default:
      break;
  }
  after(kSecond + below(5 * kSecond), [this] { make_trouble(); });
}

// --- the network and the authority -------------------------------------------------------------------------

// On its way: late, lost or twice. In order, as on one connection, but for what comes twice.
void World::deliver(std::int64_t& last_arrival, std::function<void()> message) {
  const bool trouble = options_.faults && now_ < options_.faults_us;
  const std::uint64_t epoch = connections_epoch_;
  const auto arrive = [this, epoch, message] {
    if (epoch == connections_epoch_) message();  // a restarted server reads nothing of old connections
  };
  const auto delay = [&] {
    const std::int64_t way = 100 + below(chance(0.05) ? kSlowest : kMilli);
    return std::max(way, stalled_until_ - now_ + below(kMilli));
  };
  if (trouble && chance(0.02)) return;
  last_arrival = std::max(now_ + delay(), last_arrival);
  at(last_arrival, arrive);
  if (trouble && chance(0.02)) after(delay(), arrive);
}

void World::receive(Node& node, std::uint64_t boot, const RenewRequest& request) {
  const Epoch epoch = epoch_clock_.at(authority_time());
  if (has_daily_limit() && was_learning_ && !epoch.learning) note_unheard();
  was_learning_ = epoch.learning;
  const RenewReply reply = state_->renew(request, authority_time(), epoch);
  // In a later epoch hearsay may charge to a node what it has given back since; that only makes it stricter.
  if (losses_ == 0 && state_->charged() > options_.events_per_day) {
    violated(
        fmt::format("the authority has handed out {} of {}", state_->charged(), options_.events_per_day));
  }
  // What the answer says was true when it was given: a node that comes back meanwhile changes nothing.
  deliver(node.last_answered, [&node, boot, reply, out_of_reach = out_of_reach()] {
    if (!node.up || node.boot != boot) return;
    node.out_of_reach = out_of_reach;
    node.answered_day = reply.day;
    node.keeper->on_reply(node.org(), reply, node.clock());
  });
}

void World::receive(Node& node, std::uint64_t boot, const AgentsRequest& request) {
  AgentsReply reply;
  reply.seq = request.seq;
  reply.learning = epoch_clock_.at(authority_time()).learning;
  const WallMicros now = authority_time();
  std::erase_if(agents_, [&](const auto& one) { return one.second + 24 * kMicrosPerHour <= now; });
  for (std::size_t i = 0; i < request.fingerprints.size(); ++i) {
    const std::uint64_t agent = request.fingerprints[i];
    const WallMicros seen = now - (request.ages_s.empty() ? 0 : request.ages_s[i] * kSecond);
    const bool known = agents_.contains(agent);
    const bool room = !reply.learning && static_cast<std::int64_t>(agents_.size()) < request.agents_max;
    const bool has_place = known || ((room || request.restate) && seen + 24 * kMicrosPerHour > now);
    if (!has_place) continue;
    agents_[agent] = std::max(agents_[agent], seen);
    reply.admitted.push_back(agent);
  }
  // Later an old copy may bring back one that got its place in an answer that nobody read.
  if (losses_ == 0 && static_cast<std::int64_t>(agents_.size()) > options_.agents_max) {
    violated(fmt::format("{} agents hold places, the cap is {}", agents_.size(), options_.agents_max));
  }
  deliver(node.last_answered, [&node, boot, reply] {
    if (node.up && node.boot == boot) node.keeper->on_agents(node.org(), reply, node.clock());
  });
}

}  // namespace kavach::quota::simulation
