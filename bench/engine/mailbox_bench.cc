// What a message between two threads costs: the bare ring, a Message through Runtime and Outbox, and what
// Asio offers instead. Saturated, when neither side ever sleeps, and as a ping-pong, when both always do.
//
// An iteration is a whole run; items_per_second counts its messages or round trips. "CPU" is that of all
// threads together.
#include <benchmark/benchmark.h>

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <cstdint>
#include <thread>

#include "engine/mailbox.h"
#include "engine/shard.h"

namespace kavach::bench {
namespace {

namespace asio = boost::asio;

constexpr std::uint64_t kMessages = 200'000;
constexpr std::uint64_t kRoundTrips = 2'000;
// Messages that one turn of the sender sends.
constexpr std::uint64_t kBurst = 64;

// Where the messages arrive: adds up their numbers, so that none may be missing or come twice.
struct Receiver {
  std::uint64_t count = 0;
  std::uint64_t sum = 0;
  std::uint64_t wanted = 0;
  std::atomic<bool> done{false};

  void reset() {
    count = sum = 0;
    done.store(false);
  }
  void take(std::uint64_t number) noexcept {
    sum += number;
    if (++count == wanted) {
      done.store(true);
      done.notify_one();
    }
  }
  bool is_right() const { return count == wanted && sum == wanted * (wanted - 1) / 2; }
};

// Each iteration of the benchmark is a whole run of `count` messages.
template <typename Run>
void measure(benchmark::State& state, std::uint64_t count, Run run) {
  Receiver receiver;
  receiver.wanted = count;
  for (auto _ : state) {
    receiver.reset();
    run(receiver);
    receiver.done.wait(false);
    if (!receiver.is_right()) state.SkipWithError("wrong answer: the time means nothing");
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(count));
}

void BM_RingSaturated(benchmark::State& state) {
  SpscRing<std::uint64_t, bounds::kMailboxSlots> ring;
  std::atomic<bool> stopping{false};
  std::atomic<Receiver*> receiver{nullptr};
  std::thread consumer([&] {
    while (!stopping.load(std::memory_order_relaxed)) {
      const std::size_t taken = ring.drain(
          [&](std::uint64_t number) { receiver.load(std::memory_order_acquire)->take(number); }, 1024);
      if (taken == 0) std::this_thread::yield();
    }
  });
  measure(state, kMessages, [&](Receiver& r) {
    receiver.store(&r, std::memory_order_release);
    for (std::uint64_t i = 0; i < kMessages; ++i) {
      while (!ring.try_push(i)) std::this_thread::yield();
    }
  });
  stopping = true;
  consumer.join();
}
BENCHMARK(BM_RingSaturated)->MeasureProcessCPUTime()->UseRealTime();

Message number_message(Receiver& receiver, std::uint64_t number) {
  return {
      [](void* target, std::uint64_t n, std::uint64_t) noexcept { static_cast<Receiver*>(target)->take(n); },
      &receiver, number, 0};
}

// Sends a burst, and comes again in the next turn until all are sent.
void send_bursts(Shard& from, Receiver& receiver, std::uint64_t begin) {
  const std::uint64_t end = std::min(begin + kBurst, receiver.wanted);
  for (std::uint64_t i = begin; i < end; ++i) from.outbox().send(1, number_message(receiver, i));
  if (end < receiver.wanted)
    asio::post(from.io(), [&from, &receiver, end] { send_bursts(from, receiver, end); });
}

void BM_OutboxSaturated(benchmark::State& state) {
  // One burst a turn, as a turn of the data path sends what its requests asked for.
  Runtime runtime({.shards = 2, .turn_handlers_max = 1});
  runtime.start();
  measure(state, kMessages, [&](Receiver& receiver) {
    runtime.shard(0).post([&] { send_bursts(runtime.shard(0), receiver, 0); });
  });
  runtime.stop();
}
BENCHMARK(BM_OutboxSaturated)->MeasureProcessCPUTime()->UseRealTime();

struct PingPong {
  Runtime* runtime;
  Receiver* receiver;
  std::uint64_t number = 0;

  // On shard 1.
  static void pong(void* target, std::uint64_t, std::uint64_t) noexcept {
    static_cast<PingPong*>(target)->runtime->shard(1).outbox().send(0, {ping, target, 0, 0});
  }
  // On shard 0.
  static void ping(void* target, std::uint64_t, std::uint64_t) noexcept {
    auto& self = *static_cast<PingPong*>(target);
    const std::uint64_t number = self.number++;
    // The last take() ends the game, and `self` with it.
    if (self.number < kRoundTrips) self.runtime->shard(0).outbox().send(1, {pong, target, 0, 0});
    self.receiver->take(number);
  }
};

void BM_OutboxPingPong(benchmark::State& state) {
  Runtime runtime({.shards = 2});
  runtime.start();
  measure(state, kRoundTrips, [&](Receiver& receiver) {
    PingPong game{&runtime, &receiver};
    runtime.shard(0).post([&game, &runtime] {
      runtime.shard(0).outbox().send(1, {PingPong::pong, &game, 0, 0});
    });
    receiver.done.wait(false);
  });
  runtime.stop();
}
BENCHMARK(BM_OutboxPingPong)->MeasureProcessCPUTime()->UseRealTime();

// An io_context with a thread of its own.
struct AsioThread {
  asio::io_context io{1};
  asio::executor_work_guard<asio::io_context::executor_type> work{io.get_executor()};
  std::thread thread{[this] { io.run(); }};
  AsioThread() = default;
  AsioThread(const AsioThread&) = delete;
  AsioThread& operator=(const AsioThread&) = delete;
  ~AsioThread() {
    work.reset();
    thread.join();
  }
};

void BM_AsioPostSaturated(benchmark::State& state) {
  AsioThread to;
  measure(state, kMessages, [&](Receiver& receiver) {
    for (std::uint64_t i = 0; i < kMessages; ++i) asio::post(to.io, [&receiver, i] { receiver.take(i); });
  });
}
BENCHMARK(BM_AsioPostSaturated)->MeasureProcessCPUTime()->UseRealTime();

void asio_round(AsioThread& here, AsioThread& there, Receiver& receiver, std::uint64_t number) {
  asio::post(there.io, [&, number] {
    asio::post(here.io, [&, number] {
      // The last take() ends the game.
      if (number + 1 < receiver.wanted) asio_round(here, there, receiver, number + 1);
      receiver.take(number);
    });
  });
}

void BM_AsioPostPingPong(benchmark::State& state) {
  AsioThread here;
  AsioThread there;
  measure(state, kRoundTrips, [&](Receiver& receiver) { asio_round(here, there, receiver, 0); });
}
BENCHMARK(BM_AsioPostPingPong)->MeasureProcessCPUTime()->UseRealTime();

}  // namespace
}  // namespace kavach::bench
