// Shard: messages arrive once and in order, whoever sleeps, and nothing is lost when rings overflow.
#include "engine/shard.h"

#include <doctest/doctest.h>

#include <atomic>
#include <boost/asio/post.hpp>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

namespace kavach {
namespace {

// Ends the test instead of hanging when what it waits for never comes.
bool eventually(const std::function<bool()>& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

struct Received {
  std::atomic<std::uint64_t> count{0};
  std::atomic<bool> in_order{true};
};

void receive(void* target, std::uint64_t number, std::uint64_t) noexcept {
  auto& received = *static_cast<Received*>(target);
  if (received.count.load() != number) received.in_order = false;
  received.count.fetch_add(1);
}

TEST_CASE("messages between all pairs of shards arrive once and in order, far beyond a ring's slots") {
  constexpr std::uint32_t kShards = 3;
  constexpr std::uint64_t kMessages = 3 * bounds::kMailboxSlots;
  Runtime runtime({.shards = kShards});
  std::vector<Received> received(kShards * kShards);
  runtime.start();
  for (ShardId from = 0; from < kShards; ++from) {
    runtime.shard(from).post([&, from] {
      for (std::uint64_t i = 0; i < kMessages; ++i) {
        for (ShardId to = 0; to < kShards; ++to) {
          runtime.shard(from).outbox().send(to, {receive, &received[from * kShards + to], i, 0});
        }
      }
    });
  }
  for (Received& one : received) {
    CHECK(eventually([&] { return one.count == kMessages; }));
    CHECK(one.in_order);
  }
  runtime.stop();
}

TEST_CASE("an outside thread wakes a shard that sleeps, message by message") {
  Runtime runtime({.shards = 1, .outside_senders = 1});
  Received received;
  runtime.start();
  for (std::uint64_t i = 0; i < 200; ++i) {
    runtime.outside_outbox(0).send(0, {receive, &received, i, 0});
    runtime.outside_outbox(0).flush();
    REQUIRE(eventually([&] { return received.count == i + 1; }));
  }
  CHECK(received.in_order);
  runtime.stop();
}

TEST_CASE("what an outside thread could not put into a full ring waits until it flushes again") {
  constexpr std::uint64_t kMessages = 2 * bounds::kMailboxSlots;
  Runtime runtime({.shards = 1, .outside_senders = 1});
  Received received;
  Outbox& outbox = runtime.outside_outbox(0);
  for (std::uint64_t i = 0; i < kMessages; ++i) outbox.send(0, {receive, &received, i, 0});
  CHECK_FALSE(outbox.flush());  // nobody drains yet
  runtime.start();
  CHECK(eventually([&] { return outbox.flush(); }));
  CHECK(eventually([&] { return received.count == kMessages; }));
  CHECK(received.in_order);
  runtime.stop();
}

TEST_CASE("posts from several threads all run on the shard's own thread") {
  Runtime runtime({.shards = 2});
  runtime.start();
  std::atomic<int> ran{0};
  std::atomic<int> elsewhere{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) {
        runtime.shard(1).post([&] {
          if (!runtime.shard(1).on_this_thread() || runtime.shard(0).on_this_thread()) ++elsewhere;
          ++ran;
        });
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(eventually([&] { return ran == 2000; }));
  CHECK(elsewhere == 0);
  runtime.stop();
}

TEST_CASE("hooks at the end of a turn run after its messages, and ticks come by themselves") {
  Runtime runtime({.shards = 1});
  std::atomic<int> ticks{0};
  std::atomic<int> hook_saw{0};
  int messages = 0;
  runtime.shard(0).at_tick([&] { ++ticks; });
  runtime.shard(0).at_end_of_turn([&] { hook_saw = messages; });
  runtime.start();
  runtime.shard(0).post([&] { messages = 7; });
  CHECK(eventually([&] { return hook_saw == 7; }));
  CHECK(eventually([&] { return ticks >= 2; }));
  runtime.stop();
}

TEST_CASE("a spinning shard works like one that sleeps") {
  Runtime runtime({.shards = 2, .spin_us = 50});
  Received received;
  runtime.start();
  runtime.shard(0).post([&] {
    for (std::uint64_t i = 0; i < 1000; ++i) runtime.shard(0).outbox().send(1, {receive, &received, i, 0});
  });
  CHECK(eventually([&] { return received.count == 1000; }));
  CHECK(received.in_order);
  runtime.stop();
}

class ManualClock final : public Clock {
 public:
  WallMicros wall() const noexcept override { return now_; }
  MonoMicros mono() const noexcept override { return now_; }
  void set(std::int64_t now) { now_ = now; }

 private:
  std::atomic<std::int64_t> now_{1};
};

TEST_CASE("the time is read once per turn, and a slow turn is counted") {
  ManualClock clock;
  Runtime runtime({.shards = 1, .turn_warn_us = 1000, .clock = &clock});
  runtime.start();
  std::atomic<bool> done{false};
  std::atomic<bool> stood_still{false};
  runtime.shard(0).post([&] {
    const WallMicros before = runtime.shard(0).wall_now();
    clock.set(5'000);
    stood_still = runtime.shard(0).wall_now() == before;
    done = true;
  });
  CHECK(eventually([&] { return done.load(); }));
  CHECK(stood_still);
  CHECK(eventually([&] { return runtime.shard(0).metrics().slow_turns.value() == 1; }));
  runtime.stop();
}

TEST_CASE("handlers that take long do not keep messages waiting") {
  ManualClock clock;
  Runtime runtime({.shards = 1, .outside_senders = 1, .turn_warn_us = 3'600'000'000, .clock = &clock});
  Received received;
  runtime.outside_outbox(0).send(0, {receive, &received, 0, 0});
  std::vector<std::uint64_t> seen;  // by each handler: how many messages had been run
  for (int i = 0; i < 5; ++i) {
    boost::asio::post(runtime.shard(0).io(), [&] {
      seen.push_back(received.count);
      clock.set(clock.mono() + 100'000);
    });
  }
  std::atomic<bool> done{false};
  boost::asio::post(runtime.shard(0).io(), [&] { done = true; });
  runtime.start();
  CHECK(eventually([&] { return done.load(); }));
  runtime.stop();
  CHECK(seen == std::vector<std::uint64_t>{0, 1, 1, 1, 1});
}

}  // namespace
}  // namespace kavach
