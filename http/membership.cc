#include "http/membership.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "engine/clock.h"
#include "engine/log.h"
#include "engine/money.h"

namespace kavach::http {
namespace {

// A start and a stop wait no longer for Redis.
constexpr std::int64_t kPatienceUs = 2 * kMicrosPerSecond;

bool wait_until(const std::function<bool()>& condition, std::int64_t patience_us) {
  const MonoMicros until = system_clock().mono() + patience_us;
  while (!condition()) {
    if (system_clock().mono() >= until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

Result<quota::RedisFleet::Options> options_of(const Config::Redis& config, const Uuid& node) {
  quota::RedisFleet::Options options;
  auto url = quota::RedisUrl::parse(config.url);
  if (!url) return failure("redis.url: " + url.error().message);
  if (url->tls) {
    auto tls = quota::RedisTls::load(config.ca_file);
    if (!tls) return failure("redis.ca_file: " + tls.error().message);
    options.connection.tls = std::move(*tls);
  }
  options.connection.url = std::move(*url);
  options.wire.prefix = config.prefix;
  options.wire.learn_us = config.learn_ms * kMicrosPerMilli;
  options.wire.fleet.burst_slack_s = (config.burst_lease_ms + 999) / 1'000;
  quota::LeaseKeeper::Options& lease = options.lease;
  lease.node = node.random_half();
  // Tells this start from earlier ones of the same node.
  lease.boot = static_cast<std::uint64_t>(system_clock().wall());
  // Enough in hand to get over a pause as long as a lease.
  lease.lease_us = lease.horizon_us = config.lease_ms * kMicrosPerMilli;
  lease.renew_us = config.renew_ms * kMicrosPerMilli;
  lease.reply_us = config.reply_timeout_ms * kMicrosPerMilli;
  lease.retry_us = std::max(lease.retry_us, 2 * lease.reply_us);
  lease.idle_us = config.idle_ms * kMicrosPerMilli;
  lease.burst_lease_us = config.burst_lease_ms * kMicrosPerMilli;
  lease.events_min = config.lease_events_min;
  lease.events_max = config.lease_events_max;
  return options;
}

}  // namespace

Result<std::unique_ptr<Membership>> Membership::create(Runtime& runtime, WorkerPool& workers,
                                                       const Config& config, const Uuid& node) {
  auto options = options_of(config.redis, node);
  if (!options) return options.error();
  return std::unique_ptr<Membership>(new Membership(runtime, workers, std::move(*options)));
}

quota::Fleet& Membership::add_shard(std::function<void(quota::OrgLedger&, quota::Now)> resume) {
  Shard& shard = runtime_.shard(static_cast<ShardId>(shards_.size()));
  shards_.push_back(std::make_unique<quota::RedisFleet>(shard, workers_, options_, std::move(resume)));
  return shards_.back()->fleet();
}

void Membership::set_listener(std::function<void()> changed) {
  changes_ = std::make_unique<quota::ChangeSubscription>(
      runtime_.shard(0), workers_,
      quota::ChangeSubscription::Options{
          .url = options_.connection.url, .tls = options_.connection.tls, .prefix = options_.wire.prefix},
      std::move(changed));
}

bool Membership::can_lease() const {
  return std::all_of(shards_.begin(), shards_.end(),
                     [](const auto& shard) { return shard->connected() && !shard->learning(); });
}

void Membership::join() {
  for (std::uint32_t id = 0; id < shards_.size(); ++id) {
    runtime_.shard(id).post([&shard = *shards_[id]] { shard.start(); });
  }
  runtime_.shard(0).post([this] { changes_->start(); });
  // Requests that come before would be refused for now.
  if (!wait_until([this] { return can_lease(); }, kPatienceUs + options_.wire.learn_us)) {
    log::warning("redis: nothing can be leased yet; until then events are refused for now");
  }
}

void Membership::leave() {
  std::atomic<std::size_t> asking{shards_.size()};
  for (std::uint32_t id = 0; id < shards_.size(); ++id) {
    runtime_.shard(id).post([&shard = *shards_[id], &asking] {
      shard.give_back();
      --asking;
    });
  }
  while (asking > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  wait_until(
      [this] {
        return std::all_of(shards_.begin(), shards_.end(),
                           [](const auto& shard) { return shard->unanswered_bytes() == 0; });
      },
      kPatienceUs);
  for (std::uint32_t id = 0; id < shards_.size(); ++id) {
    runtime_.shard(id).post([&shard = *shards_[id]] { shard.stop(); });
  }
  runtime_.shard(0).post([this] { changes_->stop(); });
}

FleetHealth Membership::health() const {
  FleetHealth health;
  health.connected = true;
  for (const auto& shard : shards_) {
    const quota::LeaseKeeperMetrics& lease = shard->lease_metrics();
    health.connected = health.connected && shard->connected();
    health.learning = health.learning || shard->learning();
    health.held_events = saturating_add(health.held_events, lease.held_events.value());
    health.unmirrored_cost = saturating_add(health.unmirrored_cost, lease.unmirrored_cost.value());
    const WallMicros since = lease.degraded_since.value() * kMicrosPerSecond;
    if (since != 0) health.degraded_since = std::min(health.degraded_since.value_or(since), since);
  }
  return health;
}

void Membership::add_metrics(MetricsRegistry& registry) const {
  for (const auto& shard : shards_) shard->add_metrics(registry);
  changes_->add_to(registry);
}

}  // namespace kavach::http
