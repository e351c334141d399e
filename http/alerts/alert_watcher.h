// AlertWatcher: looks at the rules of whoever's use has grown, and fires those that are crossed.
//
// Whoever stores events says whose they were (on_usage); a thread of the watcher's own then reads what is
// used of their budgets. It comes by in rounds, so that a thousand batches of one agent cost one look, and
// it works a tenth of the time at most. Nothing is remembered over a restart: a watcher that starts looks at
// every rule once. Several processes on one store may watch: the store decides who fires.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <utility>

#include "engine/clock.h"
#include "engine/ids.h"
#include "engine/metrics.h"
#include "engine/result.h"
#include "sink/store/control/alert_rules.h"

namespace kavach::http {

class AlertWatcher {
 public:
  // What a rule that fires leaves behind; with the watcher's connection, on its thread.
  using Compose = std::function<sink::StoreResult<sink::Firing>(
      sink::ControlStore&, const std::string& org_id, const sink::CrossedRule&)>;
  // REQUIRES: the pool and the clock outlive it.
  AlertWatcher(sink::ControlStorePool& stores, Compose compose, std::function<void()> fired,
               const Clock& clock);
  ~AlertWatcher();  // stop()

  void start();
  void stop();  // idempotent
  // Quick. Any thread.
  void on_usage(std::span<const sink::UsedName> agents, std::span<const sink::UsedName> runs);

  void add_metrics(MetricsRegistry& registry) const;

 private:
  struct OrgChanges {
    std::set<std::string, std::less<>> agents, runs;
  };
  struct Changes {
    std::map<Uuid, OrgChanges> orgs = {};
    std::size_t names = 0;
    bool everything = false;  // there were too many to remember, or it is the start
  };

  void run();
  sink::StoreResult<void> look(const Changes& changes);
  sink::StoreResult<void> look_at_everything(sink::ControlStore& store);
  sink::StoreResult<void> look_at_org(sink::ControlStore& store, const std::string& org_id,
                                      const OrgChanges& changes);
  sink::StoreResult<void> look_at_agent(sink::ControlStore& store, const std::string& org_id,
                                        const std::string& agent_name, std::span<const sink::RunUse> runs);

  sink::ControlStorePool& stores_;
  const Compose compose_;
  const std::function<void()> fired_;
  const Clock& clock_;
  Counter fired_count_;
  // Rules that are crossed and were silent for having fired a moment ago: when to look again.
  std::map<std::pair<std::string, std::string>, MonoMicros> again_;

  std::mutex mutex_;
  std::condition_variable changed_;
  Changes changes_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace kavach::http
