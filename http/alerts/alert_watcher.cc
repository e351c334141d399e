#include "http/alerts/alert_watcher.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "engine/log.h"

namespace kavach::http {
namespace {

constexpr std::size_t kNamesMax = 65'536;  // of agents and runs between two rounds
constexpr std::size_t kAgainMax = 65'536;
constexpr MonoMicros kRoundUs = 200'000;
constexpr MonoMicros kAfterFailureUs = kMicrosPerSecond;
// Pauses are so many times as long as the work.
constexpr MonoMicros kIdleShare = 9;
constexpr MonoMicros kLongestPauseUs = 10 * kMicrosPerSecond;
// A run without an event for so long is over: what it did while nobody watched is no news.
constexpr std::int64_t kRunIsNewsUs = kMicrosPerHour;

}  // namespace

AlertWatcher::AlertWatcher(sink::ControlStorePool& stores, Compose compose, std::function<void()> fired,
                           const Clock& clock)
    : stores_(stores), compose_(std::move(compose)), fired_(std::move(fired)), clock_(clock) {}

AlertWatcher::~AlertWatcher() {
  stop();
}

void AlertWatcher::start() {
  {
    const std::lock_guard lock(mutex_);  // events may be stored already
    changes_.everything = true;
  }
  thread_ = std::thread([this] { run(); });
}

void AlertWatcher::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void AlertWatcher::add_metrics(MetricsRegistry& registry) const {
  registry.add("kavach_alerts_fired_total", "Alert rules that fired.", fired_count_);
}

void AlertWatcher::on_usage(std::span<const sink::UsedName> agents, std::span<const sink::UsedName> runs) {
  const std::lock_guard lock(mutex_);
  if (changes_.everything) return;
  const auto add = [this](std::span<const sink::UsedName> used, auto names) {
    for (const auto& [org_id, name] : used) {
      auto& known = changes_.orgs[org_id].*names;
      if (known.contains(name)) continue;
      known.emplace(name);
      ++changes_.names;
    }
  };
  add(agents, &OrgChanges::agents);
  add(runs, &OrgChanges::runs);
  if (changes_.names > kNamesMax) changes_ = {.everything = true};
  changed_.notify_one();
}

void AlertWatcher::run() {
  MonoMicros next_round = clock_.mono();
  bool is_away = false;
  for (;;) {
    Changes changes;
    {
      std::unique_lock lock(mutex_);
      const auto has_work = [this] { return stopping_ || changes_.everything || !changes_.orgs.empty(); };
      // Now and then also without: for the rules that wait.
      changed_.wait_for(lock, std::chrono::seconds(1), has_work);
      if (const MonoMicros early = next_round - clock_.mono(); early > 0)
        changed_.wait_for(lock, std::chrono::microseconds(early), [this] { return stopping_; });
      if (stopping_) return;
      changes = std::exchange(changes_, {});
    }
    const MonoMicros began = clock_.mono();
    const auto looked = look(changes);
    const MonoMicros ended = clock_.mono();
    if (looked) {
      is_away = false;
      next_round = ended + std::clamp((ended - began) * kIdleShare, kRoundUs, kLongestPauseUs);
      continue;
    }
    if (!is_away) log::warning("alerts: rules cannot be looked at: {}", looked.error().message);
    is_away = true;
    next_round = ended + kAfterFailureUs;
    const std::lock_guard lock(mutex_);
    changes_ = {.everything = true};
  }
}

sink::StoreResult<void> AlertWatcher::look(const Changes& changes) {
  auto store = stores_.take();
  if (!store) return store.error();
  if (changes.everything) {
    if (auto looked = look_at_everything(**store); !looked) return looked;
  }
  for (const auto& [org_id, names] : changes.orgs) {
    if (auto looked = look_at_org(**store, org_id.text(), names); !looked) return looked;
  }
  const MonoMicros now = clock_.mono();
  std::vector<std::pair<std::string, std::string>> due;
  for (const auto& [who, at] : again_) {
    if (at <= now) due.push_back(who);
  }
  for (const auto& who : due) {
    again_.erase(who);
    if (auto looked = look_at_agent(**store, who.first, who.second, {}); !looked) return looked;
  }
  return {};
}

sink::StoreResult<void> AlertWatcher::look_at_everything(sink::ControlStore& store) {
  auto watched = sink::watched_agents(store);
  if (!watched) return watched.error();
  for (const auto& [org_id, agent_name] : *watched) {
    std::vector<sink::RunUse> runs;
    if (!agent_name.empty()) {
      const auto needed = sink::has_run_budgets(store, org_id);
      if (!needed) return needed.error();
      if (*needed) {
        auto recent = sink::recent_runs(store, org_id, agent_name, clock_.wall() - kRunIsNewsUs);
        if (!recent) return recent.error();
        runs = std::move(*recent);
      }
    }
    if (auto looked = look_at_agent(store, org_id, agent_name, runs); !looked) return looked;
  }
  return {};
}

sink::StoreResult<void> AlertWatcher::look_at_org(sink::ControlStore& store, const std::string& org_id,
                                                  const OrgChanges& changes) {
  // Of each agent, those of its runs that have changed.
  std::map<std::string, std::vector<sink::RunUse>> agents;
  for (const std::string& name : changes.agents) agents[name];
  if (!changes.runs.empty()) {
    const auto needed = sink::has_run_budgets(store, org_id);
    if (!needed) return needed.error();
    if (*needed) {
      const std::vector<std::string> ids(changes.runs.begin(), changes.runs.end());
      auto runs = sink::runs_by_id(store, org_id, ids);
      if (!runs) return runs.error();
      for (sink::RunUse& run : *runs) agents[run.agent_name].push_back(std::move(run));
    }
  }
  if (auto looked = look_at_agent(store, org_id, {}, {}); !looked) return looked;
  for (const auto& [name, runs] : agents) {
    if (auto looked = look_at_agent(store, org_id, name, runs); !looked) return looked;
  }
  return {};
}

sink::StoreResult<void> AlertWatcher::look_at_agent(sink::ControlStore& store, const std::string& org_id,
                                                    const std::string& agent_name,
                                                    std::span<const sink::RunUse> runs) {
  auto crossed = sink::find_crossed_rules(store, org_id, agent_name, runs);
  if (!crossed) return crossed.error();
  for (const sink::CrossedRule& rule : crossed->due) {
    auto firing = compose_(store, org_id, rule);
    if (!firing) return firing.error();
    auto has_fired = sink::fire(store, org_id, rule, *firing);
    if (!has_fired) return has_fired.error();
    if (!*has_fired) continue;
    fired_count_.add();
    fired_();
  }
  if (crossed->some_wait && again_.size() < kAgainMax)
    again_.try_emplace({org_id, agent_name}, clock_.mono() + sink::kAlertCooldownUs);
  return {};
}

}  // namespace kavach::http
