#include "http/alerts/deliverer.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/check.h"
#include "engine/log.h"

namespace kavach::http {
namespace {

// Longer than a message waits here and is sent.
constexpr std::int64_t kLeaseUs = 90 * kMicrosPerSecond;
constexpr MonoMicros kWaitHereMax = 30 * kMicrosPerSecond;
constexpr std::size_t kClaimedMax = 64;
constexpr std::int64_t kLongestRetryUs = 15 * 60 * kMicrosPerSecond;
constexpr MonoMicros kCountEvery = 5 * kMicrosPerSecond;
constexpr MonoMicros kPruneEvery = 60 * kMicrosPerSecond;
constexpr std::int64_t kPrunedMax = 1'000;  // rows of each table at a time
// Until another process, with another key, has had time to take it.
constexpr std::int64_t kNotMineUs = 10 * kMicrosPerSecond;

std::int64_t retry_pause(std::int64_t first_us, std::int64_t attempts, Random& random) {
  const std::int64_t doublings = std::clamp<std::int64_t>(attempts - 1, 0, 20);
  const std::int64_t pause = std::min(first_us << doublings, std::max(kLongestRetryUs, first_us));
  // Up to a quarter more: messages that failed together do not come back together.
  return pause + static_cast<std::int64_t>(random.next() % static_cast<std::uint64_t>(pause / 4 + 1));
}

}  // namespace

void DelivererMetrics::add_to(MetricsRegistry& registry) const {
  constexpr const char* kName = "kavach_alert_deliveries_total";
  constexpr const char* kHelp = "Tries to deliver an alert, by how they ended.";
  registry.add(kName, kHelp, delivered, {{"result", "delivered"}});
  registry.add(kName, kHelp, retried, {{"result", "retry"}});
  registry.add(kName, kHelp, failed, {{"result", "failed"}});
  registry.add("kavach_alert_deliveries_waiting", "Messages of alerts that are to be delivered.", waiting);
}

Deliverer::Deliverer(const Options& options, sink::ControlStorePool& stores, const SecretBox& secrets,
                     Send send, const Clock& clock)
    : options_(options), stores_(stores), secrets_(secrets), send_(std::move(send)), clock_(clock) {}

Deliverer::~Deliverer() {
  stop();
}

void Deliverer::start() {
  workers_ =
      std::make_unique<WorkerPool>(WorkerPool::Options{.name = "deliver", .threads = options_.workers});
  thread_ = std::thread([this] { run(); });
}

void Deliverer::wake() {
  const std::lock_guard lock(mutex_);
  woken_ = true;
  changed_.notify_one();
}

void Deliverer::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
  if (workers_ != nullptr) workers_->stop();
}

void Deliverer::run() {
  for (;;) {
    const bool has_claimed = claim();
    const bool has_started = start_some();
    keep_house();
    std::unique_lock lock(mutex_);
    if (stopping_) break;
    // More may be due already, unless nothing moved.
    if (has_claimed && has_started && claimed_.empty()) continue;
    changed_.wait_for(lock, std::chrono::seconds(1), [this] { return woken_ || stopping_; });
    woken_ = false;
    if (stopping_) break;
  }
  while (!claimed_.empty()) {
    give_back(claimed_.front(), 0);
    claimed_.pop_front();
  }
}

// Whether there was something.
bool Deliverer::claim() {
  if (claimed_.size() >= options_.workers) return false;
  const auto failed = [this](const sink::StoreFailure& why) {
    if (!is_away_) log::warning("alerts: what is to be delivered cannot be read: {}", why.message);
    is_away_ = true;
    return false;
  };
  auto store = stores_.take();
  if (!store) return failed(store.error());
  auto found =
      sink::claim_deliveries(**store, static_cast<std::int64_t>(kClaimedMax - claimed_.size()), kLeaseUs);
  if (!found) return failed(found.error());
  is_away_ = false;
  for (sink::Delivery& delivery : *found) take(std::move(delivery));
  return !found->empty();
}

void Deliverer::take(sink::Delivery delivery) {
  if (delivery.org_is_deleted) {
    settle(delivery, {.kind = sink::DeliveryOutcome::Kind::kFailed, .error = "the organization was deleted"});
    return;
  }
  Claimed claimed{
      .delivery = std::move(delivery), .target = {}, .secret = {}, .lane = {}, .at = clock_.mono()};
  const auto open = [&](const std::string& sealed, std::string& into) {
    if (sealed.empty()) return true;
    auto opened = secrets_.open(sealed);
    if (opened) {
      into = std::move(*opened);
    } else if (opened.error().retryable &&
               clock_.wall() - claimed.delivery.created_at < options_.give_up_us) {
      give_back(claimed, kNotMineUs);
    } else {
      settle(claimed.delivery,
             {.kind = sink::DeliveryOutcome::Kind::kFailed, .error = opened.error().message});
    }
    return opened.has_value();
  };
  if (!open(claimed.delivery.target_sealed, claimed.target) ||
      !open(claimed.delivery.secret_sealed, claimed.secret))
    return;
  claimed.lane = claimed.delivery.channel + " " + claimed.target;
  claimed_.push_back(std::move(claimed));
}

// Hands on what may be sent now; whether there was any.
bool Deliverer::start_some() {
  bool has_started = false;
  const MonoMicros now = clock_.mono();
  const std::uint32_t org_max = std::max<std::uint32_t>(1, options_.workers / 2);
  std::deque<Claimed> kept;
  for (Claimed& claimed : std::exchange(claimed_, {})) {
    std::unique_lock lock(mutex_);
    if (const MonoMicros pause = breakers_.pause(claimed.lane, now); pause > 0) {
      lock.unlock();
      give_back(claimed, pause);
      continue;
    }
    const auto org = orgs_busy_.find(claimed.delivery.org_id);
    if (stopping_ || busy_ >= options_.workers || lanes_busy_.contains(claimed.lane) ||
        (org != orgs_busy_.end() && org->second >= org_max)) {
      lock.unlock();
      if (now - claimed.at > kWaitHereMax) {
        give_back(claimed, kMicrosPerSecond);
      } else {
        kept.push_back(std::move(claimed));
      }
      continue;
    }
    ++busy_;
    ++orgs_busy_[claimed.delivery.org_id];
    lanes_busy_.insert(claimed.lane);
    lock.unlock();
    has_started = true;
    const bool is_taken = workers_->try_post(
        [this, message = std::make_shared<Claimed>(std::move(claimed))] { deliver(*message); });
    KAVACH_CHECK(is_taken, "the workers' queue has room for as many as there are workers");
  }
  claimed_ = std::move(kept);
  return has_started;
}

// On a worker.
void Deliverer::deliver(const Claimed& claimed) {
  const SendResult result = send_({.channel = claimed.delivery.channel,
                                   .org_id = claimed.delivery.org_id,
                                   .target = claimed.target,
                                   .secret = claimed.secret,
                                   .body = claimed.delivery.body});
  settle(claimed.delivery, judge(claimed, result));
  const std::lock_guard lock(mutex_);
  --busy_;
  if (--orgs_busy_[claimed.delivery.org_id] == 0) orgs_busy_.erase(claimed.delivery.org_id);
  lanes_busy_.erase(claimed.lane);
  woken_ = true;
  changed_.notify_one();
}

sink::DeliveryOutcome Deliverer::judge(const Claimed& claimed, const SendResult& result) {
  using Kind = sink::DeliveryOutcome::Kind;
  const std::lock_guard lock(mutex_);
  const WallMicros now = clock_.wall();
  if (result.kind == SendResult::Kind::kCancelled)
    return {.kind = Kind::kGiveBack, .error = {}, .next_at = now};
  if (result.kind == SendResult::Kind::kNoAnswer) {
    breakers_.failed(claimed.lane, clock_.mono());
  } else {
    breakers_.answered(claimed.lane);
  }
  sink::DeliveryOutcome outcome{.status = result.status, .error = result.error, .next_at = now};
  if (result.kind == SendResult::Kind::kDelivered) {
    metrics_.delivered.add();
    return outcome;
  }
  std::int64_t pause = retry_pause(options_.first_retry_us, claimed.delivery.attempts, random_);
  if (result.retry_after_s) {
    constexpr std::int64_t kLongestS = kLongestRetryUs / kMicrosPerSecond;
    pause = std::max(pause, std::clamp<std::int64_t>(*result.retry_after_s, 0, kLongestS) * kMicrosPerSecond);
  }
  const bool is_final = result.kind == SendResult::Kind::kRefused ||
                        now + pause - claimed.delivery.created_at > options_.give_up_us;
  outcome.kind = is_final ? Kind::kFailed : Kind::kRetry;
  outcome.next_at = now + pause;
  (is_final ? metrics_.failed : metrics_.retried).add();
  if (is_final) {
    log::warning("alerts: a {} message of organization {} is not delivered: {}", claimed.delivery.channel,
                 claimed.delivery.org_id, result.error);
  }
  return outcome;
}

void Deliverer::give_back(const Claimed& claimed, std::int64_t pause_us) {
  settle(claimed.delivery,
         {.kind = sink::DeliveryOutcome::Kind::kGiveBack, .error = {}, .next_at = clock_.wall() + pause_us});
}

// If the store does not take it, the lease ends and the message is sent once more: so it is worth some tries.
void Deliverer::settle(const sink::Delivery& delivery, const sink::DeliveryOutcome& outcome) {
  constexpr int kTries = 5;
  std::string why;
  for (int i = 0; i < kTries; ++i) {
    if (i > 0) std::this_thread::sleep_for(std::chrono::milliseconds(200));
    auto store = stores_.take();
    if (!store) {
      why = store.error().message;
      continue;
    }
    auto settled = sink::settle_delivery(**store, delivery, outcome);
    if (settled) return;
    why = settled.error().message;
    if (!settled.error().retryable) break;
  }
  log::error("alerts: how a delivery ended cannot be kept, it may be sent twice: {}", why);
}

// The figure of what waits, and what is too old to keep.
void Deliverer::keep_house() {
  const MonoMicros now = clock_.mono();
  if (now < next_count_) return;
  next_count_ = now + kCountEvery;
  auto store = stores_.take();
  if (!store) return;
  if (const auto waiting = sink::pending_deliveries(**store)) metrics_.waiting.set(*waiting);
  if (now < next_prune_) return;
  next_prune_ = now + kPruneEvery;
  if (const auto pruned = sink::prune_alerts(**store, clock_.wall() - options_.keep_us, kPrunedMax); !pruned)
    log::warning("alerts: old ones cannot be deleted: {}", pruned.error().message);
}

}  // namespace kavach::http
