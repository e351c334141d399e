// A fleet under trouble, seed after seed: limits hold, nobody is refused wrongly, everything is counted once.
//
// KAVACH_TEST_SEEDS says how many seeds (default 200 of each kind), KAVACH_TEST_SEED replays one.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "tests/simulation/world.h"

namespace kavach::quota::simulation {
namespace {

constexpr WallMicros kNoon = 1'780'056'000LL * kMicrosPerSecond;
constexpr WallMicros kBeforeMidnight = kNoon + 12 * kMicrosPerHour - 30 * kMicrosPerSecond;

std::uint64_t number_of(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// `share`: of the seeds, for histories in which less can happen.
template <typename Run>
void for_each_seed(Run run, std::uint64_t share = 1) {
  if (const std::uint64_t one = number_of("KAVACH_TEST_SEED", 0); one != 0) return run(one);
  const std::uint64_t seeds = number_of("KAVACH_TEST_SEEDS", 200) / share;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) run(seed);
}

void expect_nothing_violated(World& world) {
  const std::string violation = world.run();
  INFO("build/release/tests/simulation_test replays it with KAVACH_TEST_SEED set to its seed");
  CHECK_MESSAGE(violation.empty(), violation);
}

TEST_CASE("a fleet in peace admits exactly the limit") {
  for_each_seed(
      [](std::uint64_t seed) {
        World world({.seed = seed,
                     .nodes = 1 + static_cast<std::uint32_t>(seed % 5),
                     .start = kNoon,
                     .faults = false});
        expect_nothing_violated(world);
        CHECK(world.durable_today() == 2'000);
        CHECK(world.permanent_refusals() > 0);
      },
      10);
}

TEST_CASE("nodes crash, the network loses and doubles, the authority stalls: the limit holds") {
  for_each_seed([](std::uint64_t seed) {
    World world({.seed = seed, .start = kNoon, .loses_data = false});
    expect_nothing_violated(world);
  });
}

TEST_CASE("the same while the authority restarts, empty or with an old copy") {
  for_each_seed([](std::uint64_t seed) {
    World world({.seed = seed, .start = kNoon});
    expect_nothing_violated(world);
  });
}

TEST_CASE("the same over midnight") {
  for_each_seed([](std::uint64_t seed) {
    World world({.seed = seed, .start = kBeforeMidnight});
    expect_nothing_violated(world);
  });
}

TEST_CASE("no 60 seconds hold more than the burst, also while nodes crash and the authority stalls") {
  for_each_seed(
      [](std::uint64_t seed) {
        const bool faults = seed % 2 == 0;
        World world({.seed = seed,
                     .events_per_day = kUnlimited,
                     .burst_per_minute = 2'000,
                     .start = kNoon,
                     .faults_us = 70 * kMicrosPerSecond,
                     .length_us = 200 * kMicrosPerSecond,
                     .faults = faults,
                     .loses_data = false});
        expect_nothing_violated(world);
        // What a crashed node held of it is lost for a minute; in peace nearly all of it is used.
        if (!faults) CHECK(world.admitted_in_window() >= 1'900);
      },
      10);
}

TEST_CASE("a budget that is used up is heard of by the whole fleet within two renewals") {
  std::int64_t most = 0;
  for_each_seed(
      [&](std::uint64_t seed) {
        World world({.seed = seed,
                     .events_per_day = kUnlimited,
                     .budget = 10'000,
                     .start = kNoon,
                     .faults_us = 15 * kMicrosPerSecond,
                     .length_us = 90 * kMicrosPerSecond});
        expect_nothing_violated(world);
        CHECK(world.durable_today() >= 10'000);
        most = std::max(most, world.overshoot());
      },
      10);
  MESSAGE("the largest overshoot: ", most, " events of one nano-dollar, at about 350 in a second");
}

}  // namespace
}  // namespace kavach::quota::simulation
