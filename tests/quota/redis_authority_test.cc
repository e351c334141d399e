// RedisAuthority: a LeaseKeeper that leases from a real redis-server, which forgets scripts and data, breaks
// off and answers with errors.
#include "quota/redis/redis_authority.h"

#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "quota/redis/scripts.h"
#include "tests/quota/redis_fixture.h"
#include "tests/support/redis_server.h"

namespace kavach::quota {
namespace {

// One node's keeper, of one organization, on a shard that runs. Its state is looked at on the shard only.
struct LeasingNode {
  LeasingNode(const test::RedisServer& server, NodeId node, std::int64_t events_per_day,
              std::int64_t agents_max = kUnlimited)
      : loop(server.unix_url()),
        authority(loop.runtime.shard(0), loop.connection, {.prefix = "t:", .learn_us = 0, .fleet = {}}),
        keeper({.node = node, .boot = 1, .retry_us = 20 * kMicrosPerMilli}, authority,
               [this](OrgLedger&, Now) {
                 // A batch that waits gives up for now.
                 answers.fetch_add(1);
               }) {
    policy.org = org.id = *Uuid::parse("01900000-0000-7000-8000-00000000000a");
    policy.events_per_day = events_per_day;
    policy.agents_max = agents_max;
    org.policy = &policy;
    authority.set_keeper(keeper);
    loop.start();
    REQUIRE(eventually([&] { return connected(); }));
  }

  ~LeasingNode() { loop.stop(); }
  LeasingNode(const LeasingNode&) = delete;
  LeasingNode& operator=(const LeasingNode&) = delete;

  Now now() { return {.wall = loop.runtime.shard(0).wall_now(), .mono = loop.runtime.shard(0).mono_now()}; }
  bool connected() {
    bool yes = false;
    loop.run([&] { yes = keeper.connected(); });
    return yes;
  }
  std::int64_t available() {
    std::int64_t events = 0;
    loop.run([&] { events = org.available(); });
    return events;
  }
  void ask(std::int64_t events) {
    loop.run(
        [&] { keeper.renew(org, {.events_need = events, .events_batch = events, .burst_need = 0}, now()); });
  }
  // True once `events` are leased. What was not answered is asked anew by the tick, and here with the next
  // answer.
  bool leases(std::int64_t events) {
    int answered = answers.load();
    ask(events);
    return eventually([&] {
      if (available() >= events) return true;
      loop.run([&] { keeper.on_tick(now()); });
      if (answers.load() != answered) {
        answered = answers.load();
        ask(events);
      }
      return false;
    });
  }
  std::int64_t agents() {
    std::int64_t places = 0;
    loop.run([&] { places = org.roster.size(now().wall); });
    return places;
  }

  Loop loop;
  RedisAuthority authority;
  LeaseKeeper keeper;
  Policy policy;
  OrgLedger org;
  std::atomic<int> answers{0};
};

TEST_CASE("nodes lease from one Redis until the limit, and not beyond it") {
  test::RedisServer server;
  LeasingNode one(server, 1, 100);
  LeasingNode two(server, 2, 100);
  CHECK(one.leases(60));
  // What is left is too little for a batch, and more may come back: it stays there for others.
  two.ask(60);
  REQUIRE(eventually([&] { return two.answers.load() > 0; }));
  CHECK(two.available() == 0);
  one.loop.run([&] { one.keeper.on_stop(one.now()); });
  CHECK(two.leases(60));
  CHECK(one.available() + two.available() <= 100);
  CHECK(two.authority.metrics().bad_replies.value() == 0);
}

TEST_CASE("scripts that the server has forgotten are sent again, and the question is answered") {
  test::RedisServer server;
  test::RedisClient client(server.socket_path());
  LeasingNode node(server, 1, kUnlimited);
  CHECK(node.leases(10));
  CHECK(node.authority.metrics().script_loads.value() == 1);
  CHECK(client("SCRIPT", "FLUSH").text == "OK");
  const int before = node.answers.load();
  node.ask(1'000);
  // By itself, without a second question.
  REQUIRE(eventually([&] { return node.answers.load() > before; }));
  CHECK(node.available() >= 1'000);
  CHECK(node.authority.metrics().script_loads.value() == 2);
  CHECK(node.authority.metrics().bad_replies.value() == 0);
  CHECK(client("SCRIPT", "EXISTS", renew_script().sha1, agents_script().sha1).elements[1].integer == 1);
}

TEST_CASE("an error of the script counts as no answer, and what follows is answered") {
  test::RedisServer server;
  test::RedisClient client(server.socket_path());
  LeasingNode node(server, 1, kUnlimited);
  const std::string key = "t:rl:{01900000-0000-7000-8000-00000000000a}:daily";
  CHECK(client("SET", key, "no hash").text == "OK");
  node.ask(10);
  REQUIRE(eventually([&] { return node.authority.metrics().bad_replies.value() > 0; }));
  CHECK(node.available() == 0);
  CHECK(client("DEL", key).integer == 1);
  CHECK(node.leases(10));
}

TEST_CASE("a server that was started again gets told what is held") {
  test::RedisServer server;
  LeasingNode node(server, 1, 100);
  REQUIRE(node.leases(60));
  const std::int64_t held = node.available();
  server.kill();
  REQUIRE(eventually([&] { return !node.connected(); }));
  server.start();
  REQUIRE(eventually([&] { return node.connected(); }));
  test::RedisClient client(server.socket_path());
  const std::string key = "t:rl:{01900000-0000-7000-8000-00000000000a}:daily";
  REQUIRE(eventually([&] { return client("HEXISTS", key, "1").integer == 1; }));
  LeasingNode other(server, 2, 100);
  other.ask(60);
  REQUIRE(eventually([&] { return other.answers.load() > 0; }));
  CHECK(node.available() <= held);
  CHECK(node.available() + other.available() <= 100);
}

TEST_CASE("more agents than one command carries get their places together, as many as there are") {
  test::RedisServer server;
  LeasingNode node(server, 1, kUnlimited, 1'000);
  std::vector<std::uint64_t> names;
  for (std::uint64_t i = 1; i <= 1'234; ++i) names.push_back(i * 0x9e3779b97f4a7c15ULL);
  node.loop.run([&] { node.keeper.claim_agents(node.org, names, node.now()); });
  REQUIRE(eventually([&] { return node.answers.load() > 0; }));
  CHECK(node.agents() == 1'000);
  // Another node sees them, and has room for none.
  LeasingNode other(server, 2, kUnlimited, 1'000);
  other.loop.run([&] {
    other.keeper.claim_agents(other.org, std::vector{names[0], std::uint64_t{5}}, other.now());
  });
  REQUIRE(eventually([&] { return other.answers.load() > 0; }));
  CHECK(other.agents() == 1);
}

TEST_CASE("what cannot be sent is no answer, and harms nothing") {
  test::RedisServer server;
  LeasingNode node(server, 1, 100, 10);
  server.kill();
  REQUIRE(eventually([&] { return !node.connected(); }));
  node.loop.run([&] {
    RenewRequest request;
    request.node = request.boot = request.seq = 1;
    node.authority.send(node.org, request);
    AgentsRequest agents;
    agents.fingerprints = {1, 2, 3};
    node.authority.send(node.org, agents);
  });
  CHECK(node.available() == 0);
  CHECK(node.loop.connection.metrics().refused_commands.value() >= 2);
}

}  // namespace
}  // namespace kavach::quota
