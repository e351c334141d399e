// RedisFleet: one shard's membership of a fleet whose authority is a Redis: the connection, what is said over
// it, and the keeper of the leases, put together and driven by the shard's loop.
//
// Its shard's own thread only, but for the constructor (before the runtime starts) and what says otherwise.
// Outlives the runtime's run.
#pragma once

#include <boost/asio/steady_timer.hpp>
#include <functional>

#include "engine/metrics.h"
#include "engine/shard.h"
#include "engine/worker_pool.h"
#include "quota/lease_keeper.h"
#include "quota/redis/connection.h"
#include "quota/redis/redis_authority.h"

namespace kavach::quota {

class RedisFleet {
 public:
  struct Options {
    RedisConnection::Options connection;
    RedisWire::Options wire;
    LeaseKeeper::Options lease;
  };
  // `resume`: as of LeaseKeeper. REQUIRES: shard and workers outlive this.
  RedisFleet(Shard& shard, WorkerPool& workers, const Options& options,
             std::function<void(OrgLedger&, Now)> resume);

  Fleet& fleet() noexcept { return keeper_; }

  void start();
  // Gives back what is leased and not spent. Afterwards nothing is leased any more.
  void give_back();
  // After give_back() was answered, or nobody wants to wait for it.
  void stop();

  // Any thread.
  bool connected() const noexcept { return connection_.metrics().connected.value() != 0; }
  // The authority leases nothing new yet, or has not said.
  bool learning() const noexcept { return authority_.metrics().learning.value() != 0; }
  std::int64_t unanswered_bytes() const noexcept { return connection_.metrics().unanswered_bytes.value(); }
  const LeaseKeeperMetrics& lease_metrics() const noexcept { return keeper_.metrics(); }
  void add_metrics(MetricsRegistry& registry) const;

 private:
  using Timer = boost::asio::basic_waitable_timer<std::chrono::steady_clock,
                                                  boost::asio::wait_traits<std::chrono::steady_clock>,
                                                  boost::asio::io_context::executor_type>;
  void arm_deadline();
  Now now() { return {.wall = shard_.wall_now(), .mono = shard_.mono_now()}; }

  Shard& shard_;
  RedisConnection connection_;
  RedisAuthority authority_;
  LeaseKeeper keeper_;
  Timer deadline_;
  bool deadline_armed_ = false;
};

}  // namespace kavach::quota
