// Deliverer: takes messages of alerts from the queue in the store and sends them, until each has arrived, was
// refused for good, or is too old.
//
// One thread claims what is due, some workers send. To one target goes one message at a time; an
// organization has at most half of the workers; a target that does not answer is left alone for a while
// (circuit_breakers.h). What fails is tried again, with pauses that double. Several processes on one store
// share the work: what one has claimed no other sends.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "engine/clock.h"
#include "engine/metrics.h"
#include "engine/worker_pool.h"
#include "http/alerts/alert_sender.h"
#include "http/alerts/circuit_breakers.h"
#include "http/outbound/secret_box.h"
#include "sink/store/control/delivery_queue.h"

namespace kavach::http {

struct DelivererMetrics {
  Counter delivered, retried, failed;
  Gauge waiting;

  void add_to(MetricsRegistry& registry) const;
};

class Deliverer {
 public:
  using Send = std::function<SendResult(const AlertMessage&)>;
  struct Options {
    std::uint32_t workers = 4;
    std::int64_t first_retry_us = 5 * kMicrosPerSecond;
    std::int64_t give_up_us = 24 * kMicrosPerHour;    // after it was queued
    std::int64_t keep_us = 30 * 24 * kMicrosPerHour;  // alert events and deliveries
  };
  // REQUIRES: all of them outlive it.
  Deliverer(const Options& options, sink::ControlStorePool& stores, const SecretBox& secrets, Send send,
            const Clock& clock);
  ~Deliverer();  // stop()

  void start();
  // There is something new. Any thread.
  void wake();
  // What was claimed and not sent goes back. Messages under way are waited for: whoever wants that to be
  // short makes them fail. Idempotent.
  void stop();

  const DelivererMetrics& metrics() const noexcept { return metrics_; }

 private:
  struct Claimed {
    sink::Delivery delivery;
    std::string target, secret;  // in clear; in memory alone
    std::string lane;            // what is one target: of this one message at a time
    MonoMicros at = 0;
  };

  void run();
  bool claim();
  bool start_some();
  void take(sink::Delivery delivery);
  void deliver(const Claimed& claimed);
  sink::DeliveryOutcome judge(const Claimed& claimed, const SendResult& result);
  void settle(const sink::Delivery& delivery, const sink::DeliveryOutcome& outcome);
  void give_back(const Claimed& claimed, std::int64_t pause_us);
  void keep_house();

  const Options options_;
  sink::ControlStorePool& stores_;
  const SecretBox& secrets_;
  const Send send_;
  const Clock& clock_;
  DelivererMetrics metrics_;     // counters: under mutex_; the gauge: the thread's own
  std::deque<Claimed> claimed_;  // the thread's own
  MonoMicros next_count_ = 0, next_prune_ = 0;
  bool is_away_ = false;  // the store, as far as the log was told

  std::mutex mutex_;
  std::condition_variable changed_;
  bool woken_ = false, stopping_ = false;
  std::set<std::string> lanes_busy_;
  std::map<std::string, std::uint32_t> orgs_busy_;
  std::uint32_t busy_ = 0;
  CircuitBreakers breakers_;
  Random random_;

  std::unique_ptr<WorkerPool> workers_;
  std::thread thread_;
};

}  // namespace kavach::http
