// Membership: a node's part in a fleet that shares a Redis: each shard's leases, and the news of changed
// limits.
//
// Made and destroyed with the node; join() and leave() block for a bounded time. Protocol: quota/DESIGN.md.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "engine/config.h"
#include "engine/ids.h"
#include "engine/metrics.h"
#include "engine/result.h"
#include "engine/shard.h"
#include "engine/worker_pool.h"
#include "http/ops/health.h"
#include "quota/ledger.h"
#include "quota/redis/change_subscription.h"
#include "quota/redis/redis_fleet.h"

namespace kavach::http {

class Membership {
 public:
  // `node` tells this node from the others, also after a restart. REQUIRES: config.redis.url is set; before
  // the runtime starts; runtime and workers outlive this.
  static Result<std::unique_ptr<Membership>> create(Runtime& runtime, WorkerPool& workers,
                                                    const Config& config, const Uuid& node);

  // For each shard, in order. `resume`: as of quota::LeaseKeeper.
  quota::Fleet& add_shard(std::function<void(quota::OrgLedger&, quota::Now)> resume);
  // `changed` is called on shard 0 when keys or limits may have changed. Once.
  void set_listener(std::function<void()> changed);

  // Returns when the shards can lease, or soon without it: a fleet is not to stay down because its Redis is.
  // REQUIRES: the runtime runs.
  void join();
  // Gives back what is leased and not spent. REQUIRES: the runtime runs, and nothing is under way any more.
  void leave();

  // Any thread.
  FleetHealth health() const;
  void add_metrics(MetricsRegistry& registry) const;

 private:
  Membership(Runtime& runtime, WorkerPool& workers, quota::RedisFleet::Options options)
      : runtime_(runtime), workers_(workers), options_(std::move(options)) {}
  bool can_lease() const;

  Runtime& runtime_;
  WorkerPool& workers_;
  const quota::RedisFleet::Options options_;
  std::vector<std::unique_ptr<quota::RedisFleet>> shards_;
  std::unique_ptr<quota::ChangeSubscription> changes_;
};

}  // namespace kavach::http
