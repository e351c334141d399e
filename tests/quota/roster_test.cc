// Roster: random histories of agents that come, fail, are restored and grow old, against a map.
#include "quota/roster.h"

#include <doctest/doctest.h>

#include <map>
#include <vector>

#include "engine/ids.h"

namespace kavach::quota {
namespace {

constexpr WallMicros kNow = 1'780'000'000LL * kMicrosPerSecond;

struct Agent {
  std::int64_t seen_s = 0;
  int pending = 0;
};

// Fingerprints that begin their chains at few places, so that holes are closed in every way there is.
std::uint64_t fingerprint_of(std::uint64_t number) {
  return (number << 8) | (number % 3 == 0 ? 0xff : number % 5);
}

void run_history(std::uint64_t seed) {
  Random random(seed);
  Roster roster;
  std::map<std::uint64_t, Agent> model;
  WallMicros now = kNow;
  for (int step = 0; step < 2'000; ++step) {
    now += static_cast<WallMicros>(random.next() % 1'200) * kMicrosPerSecond;
    const std::int64_t now_s = now / kMicrosPerSecond;
    const std::uint64_t fingerprint = fingerprint_of(random.next() % 200);
    Agent& agent = model[fingerprint];
    switch (random.next() % 4) {
      case 0:
        roster.take(fingerprint, now);
        ++agent.pending;
        break;
      case 1:
        roster.restore(fingerprint, now);
        agent.seen_s = now_s;
        break;
      default:
        if (agent.pending == 0) break;
        const bool durable = random.next() % 2 == 0;
        roster.settle(fingerprint, durable, now);
        --agent.pending;
        if (durable) agent.seen_s = now_s;
    }
    std::int64_t active = 0;
    for (const auto& [number, known] : model) {
      const bool is_active =
          known.pending > 0 || (known.seen_s != 0 && known.seen_s + Roster::kActiveSeconds > now_s);
      active += is_active ? 1 : 0;
      REQUIRE(roster.contains(number, now) == is_active);
    }
    REQUIRE(roster.size(now) == active);
    std::vector<std::uint64_t> listed;
    std::vector<std::int64_t> ages_s;
    roster.list_active(now, listed, ages_s);
    REQUIRE(static_cast<std::int64_t>(listed.size()) == active);
  }
}

TEST_CASE("in random histories the roster agrees with a map") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    run_history(seed);
  }
}

TEST_CASE("ten agents take 256 bytes, three take 64") {
  Roster roster;
  for (std::uint64_t agent = 1; agent <= 3; ++agent) roster.restore(agent, kNow);
  CHECK(roster.bytes() == 64);
  for (std::uint64_t agent = 4; agent <= 10; ++agent) roster.restore(agent, kNow);
  CHECK(roster.bytes() == 256);
}

}  // namespace
}  // namespace kavach::quota
