#include "quota/redis/redis_fleet.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace kavach::quota {

RedisFleet::RedisFleet(Shard& shard, WorkerPool& workers, const Options& options,
                       std::function<void(OrgLedger&, Now)> resume)
    : shard_(shard),
      connection_(shard, workers, options.connection),
      authority_(shard, connection_, options.wire),
      keeper_(options.lease, authority_, std::move(resume)),
      deadline_(shard.io()) {
  authority_.set_keeper(keeper_);
  shard.at_tick([this] { keeper_.on_tick(now()); });
  shard.at_end_of_turn([this] { arm_deadline(); });
}

void RedisFleet::start() {
  keeper_.on_start(now());
  connection_.start();
}

void RedisFleet::give_back() {
  keeper_.on_stop(now());
}

void RedisFleet::stop() {
  deadline_.cancel();
  connection_.stop();
}

void RedisFleet::arm_deadline() {
  if (deadline_armed_) return;
  const MonoMicros when = keeper_.next_deadline(now());
  if (when == 0) return;
  deadline_armed_ = true;
  deadline_.expires_after(std::chrono::microseconds(std::max<MonoMicros>(0, when - shard_.mono_now())));
  deadline_.async_wait([this](const boost::system::error_code& error) {
    deadline_armed_ = false;
    if (!error) keeper_.on_deadline(now());
  });
}

void RedisFleet::add_metrics(MetricsRegistry& registry) const {
  connection_.metrics().add_to(registry, shard_.id());
  authority_.metrics().add_to(registry, shard_.id());
  keeper_.metrics().add_to(registry, shard_.id());
}

}  // namespace kavach::quota
