// What the shipper tells the shards, and when a broker counts as away. Time is an argument.
#include "sink/kafka/broker_progress.h"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace kavach::sink {
namespace {

constexpr std::int64_t kPatience = 2'000;

std::vector<std::uint32_t> woken(BrokerProgress& progress) {
  std::vector<std::uint32_t> shards;
  progress.wake_waiting([&](std::uint32_t shard) { shards.push_back(shard); });
  return shards;
}

TEST_CASE("a shard is woken once, when what it waits for is acknowledged") {
  BrokerProgress progress;
  CHECK(progress.await(0, 5));
  CHECK(progress.await(3, 7));
  progress.publish(4, 9, 1);
  CHECK(woken(progress).empty());
  progress.publish(6, 9, 2);
  CHECK(woken(progress) == std::vector<std::uint32_t>{0});
  progress.publish(9, 9, 3);
  CHECK(woken(progress) == std::vector<std::uint32_t>{3});
  CHECK(woken(progress).empty());
}

TEST_CASE("what is acknowledged already is not waited for") {
  BrokerProgress progress;
  progress.publish(5, 5, 1);
  CHECK_FALSE(progress.await(0, 5));
  CHECK(woken(progress).empty());
  CHECK(progress.await(0, 6));
}

TEST_CASE("a broker is away while the journal's end of a moment ago is not acknowledged in time") {
  BrokerProgress progress;
  CHECK_FALSE(progress.away(1'000'000, kPatience));
  progress.publish(0, 3, 1'000);
  progress.publish(2, 8, 2'000);
  CHECK_FALSE(progress.away(3'000, kPatience));
  CHECK(progress.away(3'001, kPatience));
  progress.publish(3, 8, 2'500);
  CHECK_FALSE(progress.away(3'001, kPatience));
}

TEST_CASE("a backlog is away until a turn is quick, or nothing is left of it") {
  BrokerProgress progress;
  progress.publish(0, 1'000, 1'000);
  CHECK(progress.away(9'000, kPatience));
  progress.publish(1'000, 5'000, 9'000);
  CHECK(progress.away(9'001, kPatience));
  SUBCASE("a turn is quick") {
    progress.publish(5'000, 5'100, 10'000);
    CHECK_FALSE(progress.away(10'001, kPatience));
  }
  SUBCASE("nothing is left") {
    progress.publish(5'000, 5'000, 20'000);
    CHECK_FALSE(progress.away(20'001, kPatience));
    CHECK_FALSE(progress.away(90'000, kPatience));
  }
}

TEST_CASE("a broker to which nothing can be sent is away") {
  BrokerProgress progress;
  progress.set_stopped(true);
  CHECK(progress.away(1, kPatience));
  progress.set_stopped(false);
  CHECK_FALSE(progress.away(1, kPatience));
}

TEST_CASE("no wake-up is lost between a shipper and a shard that are both quick") {
  constexpr std::uint64_t kFrames = 20'000;
  BrokerProgress progress;
  std::atomic<std::uint64_t> durable{0};
  std::atomic<std::uint64_t> wakes{0};
  std::thread shipper([&] {
    for (std::uint64_t done = 0; done < kFrames;) {
      const std::uint64_t seq = durable.load();
      if (seq == done) std::this_thread::yield();
      done = seq;
      progress.publish(done, seq, 1);
      progress.wake_waiting([&](std::uint32_t) { wakes.fetch_add(1); });
    }
  });
  std::uint64_t seen = 0;
  for (std::uint64_t seq = 1; seq <= kFrames; ++seq) {
    durable.store(seq);
    while (progress.await(1, seq)) {
      // Sleeps until it is woken: for ever, were a wake-up lost.
      while (wakes.load() == seen) std::this_thread::yield();
      seen = wakes.load();
    }
  }
  shipper.join();
  CHECK(progress.acknowledged() == kFrames);
}

}  // namespace
}  // namespace kavach::sink
