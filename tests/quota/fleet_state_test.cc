// FleetState: what the nodes of a fleet know of each other. That its answers are renew.lua's is
// redis_script_test.cc's business.
#include "quota/fleet_state.h"

#include <doctest/doctest.h>

#include "engine/calendar.h"

namespace kavach::quota {
namespace {

constexpr WallMicros kNoon = 20'783 * kMicrosPerDay + 12 * kMicrosPerHour;

RenewRequest request_of(NodeId node, std::uint64_t seq, WallMicros now) {
  RenewRequest request;
  request.node = node;
  request.boot = 1;
  request.seq = seq;
  request.lease_us = 10 * kMicrosPerSecond;
  request.day = day_of(now);
  request.has_usage = true;
  request.periods = {day_of(now), month_of(now), 0};
  return request;
}

TEST_CASE("what a node used itself is not among what others used") {
  FleetState fleet({});
  RenewRequest one = request_of(1, 1, kNoon);
  one.usage[0].cost = 30;
  CHECK(fleet.renew(one, kNoon, {}).others_usage[0].cost == 0);
  RenewRequest two = request_of(2, 1, kNoon);
  two.usage[0].cost = 5;
  CHECK(fleet.renew(two, kNoon, {}).others_usage[0].cost == 30);
  one.seq = 2;
  CHECK(fleet.renew(one, kNoon, {}).others_usage[0].cost == 5);
}

TEST_CASE("a node that is late to turn the day still hears what others used of it") {
  FleetState fleet({});
  RenewRequest one = request_of(1, 1, kNoon);
  one.usage[0].cost = 30;
  fleet.renew(one, kNoon, {});
  const WallMicros tomorrow = start_of_day(day_of(kNoon) + 1);
  RenewRequest turned = request_of(1, 2, tomorrow);
  turned.usage[0].cost = 1;
  fleet.renew(turned, tomorrow, {});
  RenewRequest late = request_of(2, 1, tomorrow);
  late.periods[0] = day_of(kNoon);
  CHECK(fleet.renew(late, tomorrow, {}).others_usage[0].cost == 30);
  // Two days on, nobody counts in it any more.
  const WallMicros later = start_of_day(day_of(kNoon) + 2);
  CHECK(fleet.renew(request_of(1, 3, later), later, {}).others_usage[0].cost == 0);
}

TEST_CASE("nodes that are gone for a day are forgotten, and those that are away for less are not") {
  FleetState fleet({});
  for (NodeId gone = 10; gone < 20; ++gone) fleet.renew(request_of(gone, 1, kNoon), kNoon, {});
  RenewRequest one = request_of(1, 1, kNoon);
  CHECK(fleet.renew(one, kNoon, {}).others.size() == 10);
  const WallMicros midnight = start_of_day(day_of(kNoon) + 1);
  CHECK(fleet.renew(request_of(1, 2, midnight), midnight, {}).others.size() == 10);
  const WallMicros next = midnight + kMicrosPerDay;
  CHECK(fleet.renew(request_of(1, 3, next), next, {}).others.empty());
  // Boot and seq of the one that stayed still tell old messages from new ones.
  CHECK(fleet.renew(request_of(1, 3, next), next, {}).status == RenewReply::Status::kRepeated);
}

}  // namespace
}  // namespace kavach::quota
