// The Lua scripts on a real redis-server: random histories are told to FleetState and to renew.lua with the
// same time, and the answers must be the same; likewise agents.lua and a model that is too simple to be
// wrong.
#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "engine/calendar.h"
#include "engine/ids.h"
#include "engine/timestamp.h"
#include "quota/redis/scripts.h"
#include "quota/redis/wire.h"
#include "tests/support/redis_server.h"

namespace kavach::quota {

// A NodeRecord, a Usage and so on in one line, for comparison and for the message when they differ.
static std::string text_of(const RenewReply& reply) {
  std::vector<NodeRecord> others = reply.others;
  std::sort(others.begin(), others.end(), [](const auto& a, const auto& b) { return a.node < b.node; });
  std::string text;
  const auto add = [&text](std::string_view name, auto... values) {
    text.append(name);
    ((text += ' ' + std::to_string(values)), ...);
    text += '\n';
  };
  add("status, boot, seq", static_cast<int>(reply.status), reply.boot, reply.seq);
  add("day, left", reply.day, reply.day_left_us);
  add("ceiling, charged, held elsewhere", reply.ceiling, reply.charged, reply.held_elsewhere);
  add("hungry, learning", reply.hungry, reply.learning);
  add("burst granted, second, left, wait", reply.burst_granted, reply.burst_second, reply.burst_left,
      reply.burst_wait_us);
  for (std::size_t i = 0; i < kBudgetPeriods; ++i) {
    const Usage& u = reply.others_usage[i];
    add("usage", reply.periods[i], u.events, u.cost, u.input_tokens, u.output_tokens, u.duration_ms);
  }
  for (const NodeRecord& r : others) add("other", r.node, r.boot, r.seq, r.spent, r.held, r.expires);
  return text;
}

namespace {

constexpr std::int64_t kSecond = kMicrosPerSecond;

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : random_(seed) {}
  // 0 .. n - 1
  std::int64_t below(std::int64_t n) {
    return static_cast<std::int64_t>(random_.next() % static_cast<std::uint64_t>(n));
  }
  bool chance(int percent) { return below(100) < percent; }
  template <typename T>
  T one_of(std::initializer_list<T> values) {
    return values.begin()[below(static_cast<std::int64_t>(values.size()))];
  }

 private:
  Random random_;
};

// What the server's memory is to the fleet: its run, and the epochs that follow from losses.
struct FleetModel {
  explicit FleetModel(std::int64_t learn_us) : clock(learn_us) {}

  EpochClock clock;
  std::string run_id = "run-0";
  int runs = 0;
  bool begun = false;
  std::map<std::uint64_t, std::uint64_t> numbers;  // of epochs, the model's to the script's

  Epoch at(WallMicros now) {
    if (!std::exchange(begun, true)) clock.begin(now);
    return clock.at(now);
  }
  void restart() {
    run_id = "run-" + std::to_string(++runs);
    begun = false;
  }
  // The script's numbers are its own, but they change exactly when the model's do.
  bool agrees(std::uint64_t model, std::uint64_t script) {
    const auto [known, is_new] = numbers.emplace(model, script);
    if (!is_new) return known->second == script;
    return std::none_of(numbers.begin(), numbers.end(),
                        [&](const auto& one) { return one.first != model && one.second == script; });
  }
};

struct NodeModel {
  std::uint64_t boot = 1;
  std::uint64_t seq = 0;
  std::int64_t spent = 0;
  std::vector<NodeRecord> others;
  std::int64_t burst_second = 0;
  std::optional<RenewRequest> earlier;  // one that may arrive once more, or late
};

// One organization, told to both.
class RenewHistory {
 public:
  RenewHistory(std::uint64_t seed, test::RedisClient& client)
      : dice_(seed),
        client_(client),
        options_(random_options(seed)),
        wire_(options_),
        state_(options_.fleet),
        fleet_(options_.learn_us) {
    nodes_.resize(static_cast<std::size_t>(1 + dice_.below(5)));
    limit_ = dice_.one_of<std::int64_t>({0, 40, 1'000, 1'000'000'000'000, std::int64_t{1} << 52, kUnlimited});
    burst_limit_ = dice_.one_of<std::int64_t>({0, 25, 400, 6'000'000'000, kUnlimited});
    now_ = start_of_day(20'600 + dice_.below(400)) + dice_.below(kMicrosPerDay);
    // Not far from the end of a day, and of a month.
    if (dice_.chance(50)) now_ = start_of_month(month_of(now_) + 1) - dice_.below(90 * kSecond);
  }

  // False, with both answers noted, when they differ.
  bool step() {
    pass_time();
    // In some histories time goes in steps, so that what ends with a moment meets that moment.
    if (is_coarse_) now_ -= now_ % (kSecond / 10);
    if (dice_.chance(2)) {
      fleet_.restart();
      if (dice_.chance(60)) lose_data();
    }
    wire_.set_run_id(fleet_.run_id);
    wire_.TEST_set_clock(now_);
    const auto i = static_cast<std::size_t>(dice_.below(static_cast<std::int64_t>(nodes_.size())));
    NodeModel& node = nodes_[i];
    RenewRequest request = next_request(node, i);
    if (dice_.chance(8)) std::swap(request, node.earlier.emplace(node.earlier.value_or(request)));

    latest_ = std::max(latest_, now_);
    const Epoch epoch = fleet_.at(now_);
    const RenewReply expected = state_.renew(request, latest_, epoch);
    const RedisReply raw = client_.send(wire_.renew_command(kOrg, request));
    const auto reply = RedisWire::renew_reply(RedisWire::Asked(request), raw);
    if (!reply) {
      difference = "no reply: " + raw.text;
      return false;
    }
    if (!fleet_.agrees(expected.epoch, reply->epoch)) {
      difference = "epochs differ";
      return false;
    }
    difference = "expected\n" + text_of(expected) + "but Redis says\n" + text_of(*reply);
    learn(node, request, *reply);
    return text_of(expected) == text_of(*reply);
  }

  std::string difference;
  std::map<RenewReply::Status, int> seen;
  int learning = 0;
  int hungry = 0;

 private:
  static RedisWire::Options random_options(std::uint64_t seed) {
    Dice dice(~seed);
    RedisWire::Options options;
    options.prefix = "history-" + std::to_string(seed) + ":";
    options.learn_us = dice.one_of<std::int64_t>({0, kSecond / 2, 3 * kSecond});
    options.fleet.burst_slack_s = dice.below(4);
    options.fleet.hungry_us = dice.one_of<std::int64_t>({kSecond / 2, 2 * kSecond});
    return options;
  }

  void pass_time() {
    const std::int64_t kind = dice_.below(100);
    if (kind < 60) {
      now_ += dice_.below(400'000);
    } else if (kind < 80) {
      now_ += dice_.below(3 * kSecond);
    } else if (kind < 88) {
      now_ += dice_.below(70 * kSecond);
    } else if (kind < 92) {
      // Around midnight, to the microsecond.
      now_ = std::max(now_, start_of_day(day_of(now_) + 1) + dice_.below(3) - 1);
    } else if (kind < 94) {
      now_ += dice_.below(3 * kMicrosPerDay);
    } else if (kind < 96) {
      now_ -= dice_.below(kMicrosPerHour);  // the server's clock is set back
    } else if (kind < 98) {
      now_ = std::max(now_, latest_);
    }
  }

  void lose_data() {
    client_("FLUSHALL");
    state_ = FleetState(options_.fleet);
    latest_ = 0;
    now_ += kSecond;  // a loss takes longer than no time
  }

  RenewRequest next_request(NodeModel& node, std::size_t index) {
    if (dice_.chance(3)) {
      node.boot += static_cast<std::uint64_t>(dice_.below(3));
      node.seq = 0;
    }
    const WallMicros today = std::max(now_, latest_);
    RenewRequest request;
    // Node ids use all 64 bits.
    request.node = std::numeric_limits<NodeId>::max() - 7 * index;
    request.boot = dice_.chance(3) ? node.boot - 1 : node.boot;
    node.seq += static_cast<std::uint64_t>(1 + dice_.below(2));
    request.seq = dice_.chance(6) && node.seq > 2 ? node.seq - 2 : node.seq;
    request.lease_us = dice_.one_of<std::int64_t>({100'000, 2 * kSecond, 10 * kSecond});
    request.day = day_of(today) + (dice_.chance(8) ? dice_.below(3) - 1 : 0);
    node.spent += dice_.below(10);
    request.spent = node.spent;
    // In shadow mode more is spent than was ever held.
    request.keep = dice_.below(30) - (dice_.chance(5) ? 25 : 0);
    request.need = dice_.chance(50) ? 0 : dice_.below(20);
    request.need_min = dice_.below(request.need + 1);
    request.want =
        request.need + dice_.one_of<std::int64_t>({0, dice_.below(50), dice_.below(std::int64_t{1} << 50)});
    request.limit = limit_;
    request.burst_want = dice_.chance(40) ? 0 : dice_.below(30);
    if (dice_.chance(3)) request.burst_want = 5'000'000'000;  // beyond 32 bits
    request.burst_limit = burst_limit_;
    if (dice_.chance(40)) {
      request.burst_unused = dice_.below(20);
      request.burst_unused_second = node.burst_second - (dice_.chance(20) ? dice_.below(70) : 0);
    }
    request.has_usage = dice_.chance(70);
    request.periods = {period_number(BudgetPeriod::kDaily, today),
                       period_number(BudgetPeriod::kMonthly, today), 0};
    if (dice_.chance(10)) --request.periods[0];
    if (dice_.chance(10)) --request.periods[1];
    for (Usage& usage : request.usage) {
      usage.events = dice_.below(1'000);
      usage.cost =
          dice_.one_of<std::int64_t>({dice_.below(1'000'000'000), dice_.below(kUnlimited), kUnlimited});
      usage.input_tokens = dice_.below(std::int64_t{1} << 55);
      usage.output_tokens = dice_.below(9);
      usage.duration_ms = dice_.below(1'000'000);
    }
    // A node that was just started and has not counted anything yet.
    if (dice_.chance(5)) {
      request.periods = {-1, -1, 0};
      request.usage[0] = request.usage[1] = {};
    }
    if (dice_.chance(15)) {
      request.hearsay = node.others;
      if (dice_.chance(30)) request.hearsay.push_back({request.node, 99, 99, 1, 1, now_ + kSecond});
      for (NodeRecord& heard : request.hearsay) {
        if (dice_.chance(30)) heard.seq += static_cast<std::uint64_t>(dice_.below(4));
        if (dice_.chance(10)) heard.boot += 1;
        if (dice_.chance(30)) heard.held += dice_.below(20);
      }
    }
    if (dice_.chance(10)) node.earlier = request;
    return request;
  }

  void learn(NodeModel& node, const RenewRequest& request, const RenewReply& reply) {
    ++seen[reply.status];
    learning += reply.learning ? 1 : 0;
    hungry += reply.hungry ? 1 : 0;
    if (reply.status == RenewReply::Status::kOlderBoot && request.boot >= node.boot)
      node.boot = reply.boot + 1;
    if (reply.status != RenewReply::Status::kGranted) return;
    node.others = reply.others;
    node.burst_second = reply.burst_second;
  }

  inline static const Uuid kOrg = *Uuid::parse("01900000-0000-7000-8000-00000000000a");
  Dice dice_;
  test::RedisClient& client_;
  RedisWire::Options options_;
  RedisWire wire_;
  FleetState state_;
  FleetModel fleet_;
  std::vector<NodeModel> nodes_;
  bool is_coarse_ = dice_.chance(50);
  std::int64_t limit_ = 0;
  std::int64_t burst_limit_ = 0;
  WallMicros now_ = 0;     // what the server's clock says
  WallMicros latest_ = 0;  // the latest of that: an organization's own time does not go back
};

RenewRequest first_request(std::uint64_t seq = 1) {
  RenewRequest request;
  request.node = request.boot = 1;
  request.seq = seq;
  request.lease_us = kSecond;
  return request;
}

// Loads both scripts, as RedisAuthority does.
void load_scripts(test::RedisClient& client) {
  CHECK(client("SCRIPT", "LOAD", renew_script().text).text == renew_script().sha1);
  CHECK(client("SCRIPT", "LOAD", agents_script().text).text == agents_script().sha1);
}

TEST_CASE("renew.lua answers every history exactly as FleetState does") {
  constexpr std::uint64_t kHistories = 2'000;
  constexpr int kSteps = 40;
  test::RedisServer server;
  test::RedisClient client(server.socket_path());
  load_scripts(client);
  std::map<RenewReply::Status, int> seen;
  int learning = 0;
  int hungry = 0;
  for (std::uint64_t seed = 1; seed <= kHistories; ++seed) {
    RenewHistory history(seed, client);
    for (int step = 0; step < kSteps; ++step) {
      const bool same = history.step();
      REQUIRE_MESSAGE(same, "seed ", seed, ", step ", step, ": ", history.difference);
    }
    for (const auto& [status, times] : history.seen) seen[status] += times;
    learning += history.learning;
    hungry += history.hungry;
  }
  // The histories went everywhere.
  CHECK(seen[RenewReply::Status::kGranted] > 1'000);
  CHECK(seen[RenewReply::Status::kRepeated] > 1'000);
  CHECK(seen[RenewReply::Status::kOlderBoot] > 100);
  CHECK(seen[RenewReply::Status::kOtherDay] > 100);
  CHECK(learning > 1'000);
  CHECK(learning < seen[RenewReply::Status::kGranted] / 2);
  CHECK(hungry > 1'000);
}

// Agents by when each was last seen; what the contract says of them, in a few lines.
struct AgentsModel {
  std::map<std::uint64_t, WallMicros> seen;

  AgentsReply ask(const AgentsRequest& request, WallMicros now, bool learning) {
    std::erase_if(seen, [&](const auto& one) { return one.second <= now - 24 * kMicrosPerHour; });
    AgentsReply reply{.seq = request.seq, .admitted = {}, .learning = learning};
    for (std::size_t i = 0; i < request.fingerprints.size(); ++i) {
      const std::uint64_t agent = request.fingerprints[i];
      const WallMicros when = now - (request.ages_s.empty() ? 0 : request.ages_s[i] * kSecond);
      if (!seen.contains(agent)) {
        const bool has_room = !learning && static_cast<std::int64_t>(seen.size()) < request.agents_max;
        if (when <= now - 24 * kMicrosPerHour || (!has_room && !request.restate)) continue;
      }
      seen[agent] = std::max(seen[agent], when);
      reply.admitted.push_back(agent);
    }
    return reply;
  }
};

TEST_CASE("agents.lua gives places exactly as the model does") {
  constexpr std::uint64_t kHistories = 500;
  constexpr int kSteps = 60;
  test::RedisServer server;
  test::RedisClient client(server.socket_path());
  load_scripts(client);
  const Uuid org = *Uuid::parse("01900000-0000-7000-8000-00000000000b");
  int admitted = 0;
  int refused = 0;
  for (std::uint64_t seed = 1; seed <= kHistories; ++seed) {
    Dice dice(seed);
    RedisWire wire({.prefix = "agents-" + std::to_string(seed) + ":", .learn_us = kSecond, .fleet = {}});
    FleetModel fleet(kSecond);
    AgentsModel model;
    WallMicros now = start_of_day(20'600) + dice.below(kMicrosPerDay);
    const auto cap = dice.one_of<std::int64_t>({0, 3, 20, kUnlimited});
    for (int step = 0; step < kSteps; ++step) {
      now += dice.one_of<std::int64_t>(
          {dice.below(kSecond), dice.below(kMicrosPerHour), dice.below(9 * kMicrosPerHour)});
      // In some histories time and ages go in steps, so that what ends with a moment meets that moment.
      const bool is_coarse = seed % 2 == 0;
      if (is_coarse) now -= now % kMicrosPerHour;
      if (dice.chance(3)) {
        fleet.restart();
        if (dice.chance(60)) {
          client("FLUSHALL");
          model.seen.clear();
        }
      }
      AgentsRequest request;
      request.seq = static_cast<std::uint64_t>(step);
      request.agents_max = cap;
      request.restate = dice.chance(15);
      const std::int64_t agents = dice.below(12);
      for (std::int64_t i = 0; i < agents; ++i) {
        // Of all 64 bits, and sometimes twice in one request.
        request.fingerprints.push_back(std::numeric_limits<std::uint64_t>::max() -
                                       static_cast<std::uint64_t>(dice.below(40)));
        if (request.restate)
          request.ages_s.push_back(is_coarse ? dice.below(26) * 3'600 : dice.below(26 * 3'600));
      }
      wire.set_run_id(fleet.run_id);
      wire.TEST_set_clock(now);
      const AgentsReply expected = model.ask(request, now, fleet.at(now).learning);
      const RedisReply raw = client.send(wire.agents_command(org, request, 0, request.fingerprints.size()));
      AgentsReply reply;
      const bool understood = RedisWire::agents_reply(request.fingerprints, raw, reply);
      REQUIRE_MESSAGE(understood, "seed ", seed, ", step ", step, ": ", raw.text);
      REQUIRE_MESSAGE(reply.admitted == expected.admitted, "seed ", seed, ", step ", step);
      REQUIRE_MESSAGE(reply.learning == expected.learning, "seed ", seed, ", step ", step);
      REQUIRE_MESSAGE(reply.epoch != 0, "seed ", seed, ", step ", step);
      admitted += static_cast<int>(reply.admitted.size());
      refused += static_cast<int>(request.fingerprints.size() - reply.admitted.size());
    }
  }
  CHECK(admitted > 1'000);
  CHECK(refused > 1'000);
}

TEST_CASE("every key has the name of the seed, the organization as its tag, and a time to live") {
  test::RedisServer server;
  test::RedisClient client(server.socket_path());
  load_scripts(client);
  const Uuid org = *Uuid::parse("01900000-0000-7000-8000-00000000000c");
  RedisWire wire({.prefix = "kavach:", .learn_us = 0, .fleet = {}});
  wire.set_run_id("run");
  wire.TEST_set_clock(*parse_timestamp("2026-11-25T10:00:00Z"));
  RenewRequest request = first_request();
  request.day = day_of(*parse_timestamp("2026-11-25T10:00:00Z"));
  request.need = request.want = request.burst_want = 1;
  request.has_usage = true;
  request.periods = {request.day, month_of(start_of_day(request.day)), 0};
  const auto reply =
      RedisWire::renew_reply(RedisWire::Asked(request), client.send(wire.renew_command(org, request)));
  REQUIRE(reply.has_value());
  CHECK(reply->ceiling == 1);
  CHECK(reply->burst_granted == 1);
  AgentsRequest agents;
  agents.fingerprints = {7};
  CHECK(client.send(wire.agents_command(org, agents, 0, 1)).elements[2].text == "1");

  const std::string tag = "{01900000-0000-7000-8000-00000000000c}";
  const std::map<std::string, std::int64_t> seconds_to_live{
      {"kavach:epoch", 400 * 86'400},
      {"kavach:rl:" + tag + ":daily", 48 * 3'600},
      {"kavach:rl:" + tag + ":burst", 120},
      {"kavach:spend:" + tag + ":daily:2026-11-25", 3 * 86'400},
      {"kavach:spend:" + tag + ":monthly:2026-11", 40 * 86'400},
      {"kavach:spend:" + tag + ":total", 400 * 86'400},
      {"kavach:agents:" + tag, 25 * 3'600},
  };
  CHECK(client("KEYS", "*").elements.size() == seconds_to_live.size());
  for (const auto& [key, seconds] : seconds_to_live) {
    CAPTURE(key);
    const std::int64_t left = client("TTL", key).integer;
    CHECK(left <= seconds);
    CHECK(left > seconds - 60);
  }
}

TEST_CASE("without a test's clock the time is the server's own") {
  test::RedisServer server;
  test::RedisClient client(server.socket_path());
  load_scripts(client);
  RedisWire wire({.prefix = "kavach:", .learn_us = 0, .fleet = {}});
  wire.set_run_id("run");
  const RenewRequest request = first_request();
  const WallMicros before = system_clock().wall();
  const auto reply =
      RedisWire::renew_reply(RedisWire::Asked(request), client.send(wire.renew_command(Uuid{}, request)));
  const WallMicros after = system_clock().wall();
  REQUIRE(reply.has_value());
  const WallMicros said = start_of_day(reply->day + 1) - reply->day_left_us;
  CHECK(said >= before);
  CHECK(said <= after);
}

TEST_CASE("an answer that is none of the scripts' is not taken for one") {
  const RedisWire::Asked asked(first_request(5));
  const auto array = [](std::vector<std::int64_t> numbers) {
    RedisReply reply;
    reply.kind = RedisReply::Kind::kArray;
    for (const std::int64_t number : numbers) {
      reply.elements.emplace_back().kind = RedisReply::Kind::kInteger;
      reply.elements.back().integer = number;
    }
    return reply;
  };
  CHECK(RedisWire::renew_reply(asked, array({1, 1, 5, 0, 0, 0})).has_value());
  CHECK_FALSE(RedisWire::renew_reply(asked, RedisReply{}).has_value());
  CHECK_FALSE(RedisWire::renew_reply(asked, array({1, 1, 5, 0, 0})).has_value());
  // Another question's, an unknown status, and a grant of which half is missing.
  CHECK_FALSE(RedisWire::renew_reply(asked, array({1, 1, 6, 0, 0, 0})).has_value());
  CHECK_FALSE(RedisWire::renew_reply(asked, array({9, 1, 5, 0, 0, 0})).has_value());
  CHECK_FALSE(RedisWire::renew_reply(asked, array({0, 1, 5, 0, 0, 0, 1, 1})).has_value());
  AgentsReply agents;
  const std::vector<std::uint64_t> two{1, 2};
  CHECK_FALSE(RedisWire::agents_reply(two, RedisReply{}, agents));
  RedisReply places = array({0, 7});
  places.elements.emplace_back().kind = RedisReply::Kind::kText;
  places.elements[2].text = "1";
  CHECK_FALSE(RedisWire::agents_reply(two, places, agents));
  places.elements[2].text = "01";
  CHECK(RedisWire::agents_reply(two, places, agents));
  CHECK(agents.admitted == std::vector<std::uint64_t>{2});
  CHECK(agents.epoch == 7);
}

}  // namespace
}  // namespace kavach::quota
