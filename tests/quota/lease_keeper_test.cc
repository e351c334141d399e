// LeaseKeeper: what it says to the authority, and what it makes of the answers.
#include "quota/lease_keeper.h"

#include <doctest/doctest.h>

#include <vector>

namespace kavach::quota {
namespace {

constexpr std::int64_t kHour = kMicrosPerHour;
constexpr WallMicros kNoon = 1'780'056'000LL * kMicrosPerSecond;

struct Recorder final : Authority {
  void send(OrgLedger&, const RenewRequest& request) override { renewals.push_back(request); }
  void send(OrgLedger&, const AgentsRequest& request) override { agents.push_back(request); }
  std::vector<RenewRequest> renewals;
  std::vector<AgentsRequest> agents;
};

TEST_CASE("agents that are shown to the fleet again do not become younger by it") {
  Recorder authority;
  LeaseKeeper keeper({.node = 1, .boot = 1}, authority, [](OrgLedger&, Now) {});
  Policy policy;
  policy.agents_max = 3;
  OrgLedger org;
  org.policy = &policy;
  org.roster.restore(7, kNoon - 23 * kHour);
  org.roster.take(8, kNoon);
  const Now now{.wall = kNoon, .mono = kHour};
  keeper.on_connected(now);
  keeper.renew(org, {.events_need = 1, .events_batch = 1, .burst_need = 0}, now);
  keeper.on_tick(now);
  REQUIRE(authority.agents.size() == 1);
  const AgentsRequest& shown = authority.agents[0];
  REQUIRE(shown.fingerprints.size() == 2);
  REQUIRE(shown.ages_s.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) CHECK(shown.ages_s[i] == (shown.fingerprints[i] == 7 ? 23 * 3'600 : 0));

  AgentsReply reply;
  reply.seq = shown.seq;
  reply.admitted = shown.fingerprints;
  keeper.on_agents(org, reply, now);
  CHECK(org.roster.contains(7, kNoon + kHour - kMicrosPerSecond));
  CHECK_FALSE(org.roster.contains(7, kNoon + kHour));
}

TEST_CASE("a renewal that asks for no burst leaves what is in hand, and when it expires, as they are") {
  Recorder authority;
  LeaseKeeper keeper({.node = 1, .boot = 1}, authority, [](OrgLedger&, Now) {});
  Policy policy;
  OrgLedger org;
  org.policy = &policy;
  Now now{.wall = kNoon, .mono = kHour};
  keeper.on_connected(now);
  keeper.renew(org, {.events_need = 5, .burst_need = 5}, now);
  RenewReply reply;
  reply.seq = authority.renewals.at(0).seq;
  reply.day_left_us = kHour;
  reply.ceiling = 5;
  reply.burst_granted = 5;
  reply.burst_second = 100;
  keeper.on_reply(org, reply, now);
  const MonoMicros expires = org.burst_expires;

  ++now.mono;
  keeper.renew(org, {.events_need = 6, .burst_need = 0}, now);
  REQUIRE(authority.renewals.size() == 2);
  CHECK(authority.renewals[1].burst_unused == 0);
  reply.seq = authority.renewals[1].seq;
  reply.ceiling = 6;
  reply.burst_granted = 0;
  reply.burst_second = 101;
  keeper.on_reply(org, reply, now);
  CHECK(org.burst_units == 5);
  CHECK(org.burst_second == 100);
  CHECK(org.burst_expires == expires);
}

TEST_CASE("an answer that left nothing is asked for once, however many insist, and holds for a moment only") {
  Recorder authority;
  LeaseKeeper keeper({.node = 1, .boot = 1}, authority, [](OrgLedger&, Now) {});
  Policy policy{.events_per_day = 100, .burst_per_minute = 100};
  OrgLedger org;
  org.policy = &policy;
  Now now{.wall = kNoon, .mono = kHour};
  keeper.on_connected(now);
  const Fleet::Ask ask{.events_need = 5, .events_batch = 5, .burst_need = 5};
  CHECK(keeper.renew(org, ask, now) == Fleet::Answer::kPending);
  RenewReply reply;
  const auto answer = [&] {
    reply.seq = authority.renewals.back().seq;
    keeper.on_reply(org, reply, now);
  };
  reply.day_left_us = kHour;
  reply.charged = 100;
  reply.burst_left = 4;
  answer();
  std::size_t asked = authority.renewals.size();
  for (int i = 0; i < 1'000; ++i) CHECK(keeper.renew(org, ask, now) == Fleet::Answer::kDone);
  CHECK(authority.renewals.size() == asked);

  const auto is_asked = [&](const Fleet::Ask& other) {
    const Fleet::Answer said = keeper.renew(org, other, now);
    if (said == Fleet::Answer::kPending) answer();
    const bool more = authority.renewals.size() > asked;
    asked = authority.renewals.size();
    CHECK(more == (said == Fleet::Answer::kPending));
    return more;
  };
  SUBCASE("a batch that the rest of the burst would do for") {
    CHECK(is_asked({.events_need = 0, .events_batch = 4, .burst_need = 4}));
    CHECK_FALSE(is_asked({.events_need = 0, .events_batch = 5, .burst_need = 5}));
  }
  SUBCASE("a moment later") {
    now.mono += 20 * kMicrosPerMilli;
    CHECK(is_asked(ask));
    CHECK_FALSE(is_asked(ask));
  }
  SUBCASE("the limit was raised") {
    policy.events_per_day = 200;
    CHECK(is_asked(ask));
  }
  SUBCASE("another node holds what may come back") {
    now.mono += kMicrosPerSecond;
    reply.held_elsewhere = 1;
    CHECK(is_asked(ask));
    CHECK(is_asked(ask));
  }
  SUBCASE("the day is over") {
    org.day_ends = now.mono;
    CHECK(is_asked(ask));
  }
  SUBCASE("the authority has lost its data") {
    keeper.on_forgotten(now);
    CHECK(keeper.renew(org, ask, now) == Fleet::Answer::kPending);
  }
}

}  // namespace
}  // namespace kavach::quota
