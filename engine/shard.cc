#include "engine/shard.h"

#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <boost/asio/buffer.hpp>
#include <chrono>
#include <string>
#include <utility>

#include "engine/check.h"
#include "engine/log.h"

namespace kavach {
namespace {

namespace asio = boost::asio;

constexpr auto kTick = std::chrono::milliseconds(100);
// Handlers may take long (a large body: 100 ms). After this time of them the turn goes on to the mailboxes,
// however many are ready: verdicts, receipts and the reading of the clock must not wait for 256 large bodies.
constexpr std::int64_t kTurnHandlersUs = 5'000;
// Messages of one ring that are run in a turn before the others get theirs.
constexpr std::size_t kMessagesPerRing = 1024;

thread_local Shard* current_shard = nullptr;

void pin_to_core(std::uint32_t index) {
  cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &allowed)) cores.push_back(core);
  }
  if (cores.empty()) return;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cores[index % cores.size()], &one);
  if (::pthread_setaffinity_np(::pthread_self(), sizeof(one), &one) != 0) {
    log::warning("shard {}: could not be pinned to a core", index);
  }
}

}  // namespace

// --- Outbox ------------------------------------------------------------------------------------------------

void Outbox::send(ShardId to, const Message& message) {
  dirty_ |= std::uint64_t{1} << to;
  // Order is kept: once something waits here, everything behind it does.
  if (overflow_.empty() || overflow_[to].empty()) {
    if (runtime_.ring(producer_, to).try_push(message)) return;
  }
  if (overflow_.empty()) overflow_.resize(runtime_.size());
  overflow_[to].push_back(message);
  ++overflow_count_;
}

bool Outbox::flush() {
  if (dirty_ == 0 && overflow_count_ == 0) return true;
  if (overflow_count_ > 0) {
    for (ShardId to = 0; to < runtime_.size(); ++to) {
      auto& waiting = overflow_[to];
      while (!waiting.empty() && runtime_.ring(producer_, to).try_push(waiting.front())) {
        waiting.pop_front();
        --overflow_count_;
        dirty_ |= std::uint64_t{1} << to;
      }
    }
  }
  // Pairs with the fence in Shard::wait(): either the receiver sees the message before it sleeps, or this
  // thread sees that it sleeps.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  for (ShardId to = 0; to < runtime_.size(); ++to) {
    if ((dirty_ >> to & 1) != 0) runtime_.shard(to).wake();
  }
  dirty_ = 0;
  return overflow_count_ == 0;
}

// --- Shard -------------------------------------------------------------------------------------------------

// One thread runs the io_context and others never touch it, so Asio's own locks are left out.
Shard::Shard(Runtime& runtime, ShardId id)
    : runtime_(runtime),
      id_(id),
      io_(BOOST_ASIO_CONCURRENCY_HINT_UNSAFE),
      wake_descriptor_(io_.get_executor()),
      tick_timer_(io_.get_executor()),
      outbox_(runtime, id) {
  wake_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  KAVACH_CHECK(wake_fd_ >= 0, "no eventfd for a shard");
  wake_descriptor_.assign(wake_fd_);
}

Shard* Shard::current() noexcept {
  return current_shard;
}

void Shard::post(std::function<void()> task) {
  {
    const std::lock_guard lock(inbox_mutex_);
    inbox_.push_back(std::move(task));
    inbox_filled_.store(true, std::memory_order_relaxed);
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
  wake();
}

void Shard::wake() noexcept {
  if (!sleeping_.load(std::memory_order_relaxed)) return;
  if (!sleeping_.exchange(false, std::memory_order_acq_rel)) return;  // somebody else wakes it
  const std::uint64_t one = 1;
  // Cannot fail but by overflow of the counter, and then the shard is awake anyway.
  [[maybe_unused]] const ssize_t n = ::write(wake_fd_, &one, sizeof(one));
}

void Shard::arm_wake_descriptor() {
  wake_descriptor_.async_read_some(asio::buffer(&wake_value_, sizeof(wake_value_)),
                                   [this](const boost::system::error_code& error, std::size_t) {
                                     if (!error) arm_wake_descriptor();
                                   });
}

void Shard::arm_tick() {
  tick_timer_.expires_after(kTick);
  tick_timer_.async_wait([this](const boost::system::error_code& error) {
    if (error) return;
    for (auto& hook : tick_hooks_) hook();
    arm_tick();
  });
}

void Shard::refresh_time() noexcept {
  if (!time_is_stale_) return;
  wall_ = runtime_.options_.clock->wall();
  mono_ = runtime_.options_.clock->mono();
  time_is_stale_ = false;
}

std::size_t Shard::drain_mailboxes() {
  std::size_t count = 0;
  for (std::uint32_t producer = 0; producer < runtime_.producers_; ++producer) {
    count += runtime_.ring(producer, id_)
                 .drain([](const Message& m) { m.run(m.target, m.a, m.b); }, kMessagesPerRing);
  }
  return count;
}

std::size_t Shard::drain_inbox() {
  if (!inbox_filled_.load(std::memory_order_relaxed)) return 0;
  std::vector<std::function<void()>> tasks;
  {
    const std::lock_guard lock(inbox_mutex_);
    tasks.swap(inbox_);
    inbox_filled_.store(false, std::memory_order_relaxed);
  }
  for (auto& task : tasks) task();
  return tasks.size();
}

bool Shard::anything_waiting() const noexcept {
  if (stopping_.load(std::memory_order_relaxed) || inbox_filled_.load(std::memory_order_relaxed)) return true;
  if (outbox_.has_overflow()) return true;
  for (std::uint32_t producer = 0; producer < runtime_.producers_; ++producer) {
    if (!runtime_.ring(producer, id_).empty()) return true;
  }
  return false;
}

std::size_t Shard::wait() {
  if (runtime_.options_.spin_us > 0) {
    const MonoMicros until = runtime_.options_.clock->mono() + runtime_.options_.spin_us;
    do {
      time_is_stale_ = true;
      if (io_.poll_one() > 0) return 1;
      if (anything_waiting()) return 0;
    } while (runtime_.options_.clock->mono() < until);
  }
  sleeping_.store(true, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);  // pairs with Outbox::flush() and post()
  time_is_stale_ = true;
  if (anything_waiting()) {
    sleeping_.store(false, std::memory_order_relaxed);
    return 0;
  }
  metrics_.sleeps.add();
  const std::size_t handlers = io_.run_one();
  sleeping_.store(false, std::memory_order_relaxed);
  return handlers;
}

void Shard::run() {
  current_shard = this;
  arm_wake_descriptor();
  arm_tick();
  // Keeps run_one() waiting however few sockets there are.
  const auto work = asio::make_work_guard(io_);
  const std::size_t handlers_max = runtime_.options_.turn_handlers_max;
  bool more_is_ready = true;
  while (!stopping_.load(std::memory_order_acquire)) {
    std::size_t handlers = more_is_ready ? 0 : wait();
    time_is_stale_ = true;
    const MonoMicros started = mono_now();
    more_is_ready = false;
    while (!more_is_ready && io_.poll_one() > 0) {
      ++handlers;
      more_is_ready =
          handlers >= handlers_max || runtime_.options_.clock->mono() - started >= kTurnHandlersUs;
    }
    const std::size_t messages = drain_mailboxes() + drain_inbox();
    for (auto& hook : turn_hooks_) hook();
    outbox_.flush();

    metrics_.turns.add();
    metrics_.handlers.add(handlers);
    metrics_.messages.add(messages);
    const MonoMicros took = runtime_.options_.clock->mono() - started;
    if (took > runtime_.options_.turn_warn_us) {
      metrics_.slow_turns.add();
      log::warning("shard {}: a turn took {} ms ({} handlers, {} messages, last: {})", id_,
                   took / kMicrosPerMilli, handlers, messages, activity_);
    }
  }
  outbox_.flush();
  current_shard = nullptr;
}

// --- Runtime -----------------------------------------------------------------------------------------------

Runtime::Runtime(const Options& options)
    : options_(options), producers_(options.shards + options.outside_senders) {
  KAVACH_CHECK(options.shards >= 1 && options.shards <= bounds::kShardsMax, "shards out of range");
  shards_.reserve(options.shards);
  for (ShardId id = 0; id < options.shards; ++id) shards_.emplace_back(new Shard(*this, id));
  for (std::uint32_t i = 0; i < options.outside_senders; ++i) {
    outside_.emplace_back(new Outbox(*this, options.shards + i));
  }
  rings_.reserve(std::size_t{producers_} * options.shards);
  for (std::size_t i = 0; i < std::size_t{producers_} * options.shards; ++i)
    rings_.push_back(std::make_unique<Ring>());
}

Runtime::~Runtime() {
  KAVACH_CHECK(threads_.empty(), "a runtime must be stopped before it dies");
}

void Runtime::start() {
  for (auto& shard : shards_) {
    threads_.emplace_back([this, raw = shard.get()] {
      ::pthread_setname_np(::pthread_self(), ("shard-" + std::to_string(raw->id())).c_str());
      if (options_.pin) pin_to_core(raw->id());
      raw->run();
    });
  }
}

void Runtime::stop() {
  for (auto& shard : shards_) {
    shard->stopping_.store(true, std::memory_order_release);
    std::atomic_thread_fence(std::memory_order_seq_cst);  // pairs with Shard::wait()
    shard->wake();
  }
  for (auto& thread : threads_) thread.join();
  threads_.clear();
}

void Runtime::add_metrics(MetricsRegistry& registry) const {
  for (const auto& shard : shards_) {
    const MetricsRegistry::Labels labels{{"shard", std::to_string(shard->id())}};
    const ShardMetrics& m = shard->metrics_;
    registry.add("kavach_shard_turns_total", "Turns of the event loop.", m.turns, labels);
    registry.add("kavach_shard_handlers_total", "I/O and timer handlers run.", m.handlers, labels);
    registry.add("kavach_shard_messages_total", "Messages received from other threads.", m.messages, labels);
    registry.add("kavach_shard_sleeps_total", "Times the loop waited in the reactor.", m.sleeps, labels);
    registry.add("kavach_shard_slow_turns_total", "Turns longer than engine.turn_warn_ms.", m.slow_turns,
                 labels);
  }
}

}  // namespace kavach
