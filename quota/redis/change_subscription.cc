#include "quota/redis/change_subscription.h"

#include <utility>

#include "quota/redis/announce.h"

namespace kavach::quota {
namespace {

// The longest that is read are the greeting's two INFOs, of some 1.5 KB each, and more with many replicas.
constexpr std::size_t kReplyBytesMax = 64 << 10;
constexpr std::size_t kElementsMax = 3;

RedisConnection::Options connection_options(const ChangeSubscription::Options& options) {
  RedisConnection::Options made;
  made.url = options.url;
  made.tls = options.tls;
  made.channel = change_channel(options.prefix);
  made.replies = {.reply_bytes_max = kReplyBytesMax, .elements_max = kElementsMax};
  made.ping_us = options.ping_us;
  made.stall_us = options.stall_us;
  return made;
}

}  // namespace

ChangeSubscription::ChangeSubscription(Shard& shard, WorkerPool& workers, const Options& options,
                                       std::function<void()> changed)
    : connection_(shard, workers, connection_options(options)) {
  connection_.set_listener([changed](const std::string&) { changed(); }, [] {});
  connection_.set_subscriber([this, changed = std::move(changed)](std::string_view) {
    announcements_.add();
    changed();
  });
}

void ChangeSubscription::add_to(MetricsRegistry& registry) const {
  const RedisMetrics& metrics = connection_.metrics();
  registry.add("kavach_changes_announced_total", "Announcements of changes that were heard from Redis.",
               announcements_);
  registry.add("kavach_changes_subscribed",
               "1 while changes are heard from Redis at once, else with the next poll of the store.",
               metrics.connected);
  registry.add("kavach_changes_subscriptions_total", "Times the announcements of changes were subscribed to.",
               metrics.connects);
  registry.add("kavach_changes_failed_attempts_total", "Attempts to subscribe to them that failed.",
               metrics.failed_attempts);
}

}  // namespace kavach::quota
