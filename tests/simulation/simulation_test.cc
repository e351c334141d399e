// A fleet under trouble, seed after seed: limits hold, nobody is refused wrongly, everything is counted once.
//
// KAVACH_TEST_SEEDS says how many seeds (default 200 of each kind), KAVACH_TEST_SEED replays one.
#include <doctest/doctest.h>

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

template <typename Run>
void for_each_seed(Run run) {
  if (const std::uint64_t one = number_of("KAVACH_TEST_SEED", 0); one != 0) return run(one);
  const std::uint64_t seeds = number_of("KAVACH_TEST_SEEDS", 200);
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) run(seed);
}

void expect_nothing_violated(World& world) {
  const std::string violation = world.run();
  INFO("build/release/tests/simulation_test replays it with KAVACH_TEST_SEED set to its seed");
  CHECK_MESSAGE(violation.empty(), violation);
}

TEST_CASE("a fleet in peace admits exactly the limit") {
  for_each_seed([](std::uint64_t seed) {
    World world(
        {.seed = seed, .nodes = 1 + static_cast<std::uint32_t>(seed % 5), .start = kNoon, .faults = false});
    expect_nothing_violated(world);
    CHECK(world.durable_today() == 2'000);
    CHECK(world.permanent_refusals() > 0);
  });
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

}  // namespace
}  // namespace kavach::quota::simulation
