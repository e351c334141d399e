// ChangeSubscription: a node's ear for changes of the directory (keys, tiers, limits, budgets, killed agents)
// that another process announces (announce.h), so that they take effect at once instead of with the next poll
// of the store.
//
// A connection of its own on one shard's loop. What is missed while it is away is made up for: every new
// subscription counts as a change. Made before the runtime starts, outlives its run (Runtime::stop). Its
// shard's own thread only, but for the constructor and the metrics.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/metrics.h"
#include "engine/shard.h"
#include "engine/worker_pool.h"
#include "quota/redis/connection.h"
#include "quota/redis/stream.h"
#include "quota/redis/url.h"

namespace kavach::quota {

class ChangeSubscription {
 public:
  struct Options {
    RedisUrl url;
    std::shared_ptr<const RedisTls> tls;  // REQUIRES: not null when url.tls
    std::string prefix;
    std::int64_t ping_us = 5 * kMicrosPerSecond;   // a silent server is asked whether it is there
    std::int64_t stall_us = 3 * kMicrosPerSecond;  // and has this long to answer
  };

  // `changed` is called on the shard's thread for every announcement and every new subscription; it must not
  // block, and gathers what comes in a row by itself. REQUIRES: shard and workers outlive this.
  ChangeSubscription(Shard& shard, WorkerPool& workers, const Options& options,
                     std::function<void()> changed);
  ChangeSubscription(const ChangeSubscription&) = delete;
  ChangeSubscription& operator=(const ChangeSubscription&) = delete;

  void start() { connection_.start(); }
  void stop() { connection_.stop(); }

  // Any thread.
  void add_to(MetricsRegistry& registry) const;
  std::uint64_t subscriptions() const noexcept { return connection_.metrics().connects.value(); }
  std::uint64_t announcements() const noexcept { return announcements_.value(); }

 private:
  RedisConnection connection_;
  Counter announcements_;
};

}  // namespace kavach::quota
