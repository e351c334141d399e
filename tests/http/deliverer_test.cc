// Deliverer and its circuit breakers: who is sent what when targets are slow, away or refuse.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "http/alerts/circuit_breakers.h"
#include "http/alerts/deliverer.h"
#include "sink/store/control/alert_events.h"
#include "sink/store/control/billing.h"
#include "tests/sink/store_fixture.h"

namespace kavach::http {
namespace {

using sink::test::Sql;
using Kind = SendResult::Kind;

TEST_CASE(
    "a breaker opens with the third failure in a row, for longer each time, and closes with an answer") {
  CircuitBreakers breakers;
  MonoMicros now = 1;
  breakers.failed("t", now);
  breakers.failed("t", now);
  CHECK(breakers.pause("t", now) == 0);
  breakers.failed("t", now);
  CHECK(breakers.pause("t", now) == CircuitBreakers::kFirstPause);
  CHECK(breakers.pause("other", now) == 0);
  now += CircuitBreakers::kFirstPause;
  CHECK(breakers.pause("t", now) == 0);
  breakers.failed("t", now);
  CHECK(breakers.pause("t", now) == 2 * CircuitBreakers::kFirstPause);
  for (int i = 0; i < 20; ++i) breakers.failed("t", now);
  CHECK(breakers.pause("t", now) == CircuitBreakers::kLongestPause);
  breakers.answered("t");
  breakers.failed("t", now);
  CHECK(breakers.pause("t", now) == 0);
}

TEST_CASE("however many targets fail, breakers take a bounded memory") {
  CircuitBreakers breakers;
  for (std::size_t i = 0; i < 2 * CircuitBreakers::kTargetsMax; ++i) breakers.failed(std::to_string(i), 1);
  for (int i = 0; i < 3; ++i) breakers.failed("t", 1);
  CHECK(breakers.pause("t", 1) > 0);
}

struct DelivererFixture : sink::test::StoreFixture {
  SecretBox secrets{"a passphrase"};
  sink::ControlStorePool stores{[this] { return sink::connect_control_sqlite(path); }};
  std::mutex mutex;
  std::vector<std::string> sent;  // "target body"
  std::function<SendResult(const AlertMessage&)> answer = [](const AlertMessage&) { return SendResult{}; };

  std::unique_ptr<Deliverer> start(std::uint32_t workers = 4, std::int64_t first_retry_us = 1'000,
                                   std::int64_t give_up_us = kMicrosPerHour) {
    Deliverer::Options options;
    options.workers = workers;
    options.first_retry_us = first_retry_us;
    options.give_up_us = give_up_us;
    auto deliverer = std::make_unique<Deliverer>(
        options, stores, secrets,
        [this](const AlertMessage& message) {
          {
            const std::lock_guard lock(mutex);
            sent.push_back(std::string(message.target) + " " + std::string(message.body));
          }
          return answer(message);
        },
        system_clock());
    deliverer->start();
    return deliverer;
  }
  void add(const std::string& org, const std::string& target, const std::string& body,
           bool with_other_key = false) {
    auto control = Sql::must(stores.take());
    auto added = (*control).in_transaction([&]() -> sink::StoreResult<void> {
      sink::AlertEvent event;
      event.channel = "webhook";
      auto id = sink::add_alert_event(*control, org, event);
      if (!id) return id.error();
      sink::Delivery delivery;
      delivery.org_id = org;
      delivery.channel = "webhook";
      delivery.alert_id = *id;
      delivery.target_sealed = with_other_key ? SecretBox("another").seal(target) : secrets.seal(target);
      delivery.body = body;
      return sink::add_delivery(*control, delivery);
    });
    REQUIRE(added.has_value());
  }
  std::int64_t count(const std::string& where) {
    return sql.integer("SELECT COUNT(*) FROM deliveries WHERE " + where);
  }
  template <typename Condition>
  static void wait_for(Condition condition) {
    for (int i = 0; i < 6'000 && !condition(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    REQUIRE(condition());
  }
};

TEST_CASE_FIXTURE(DelivererFixture, "each message arrives once, those of one target in turn") {
  std::map<std::string, int> at_once;
  std::atomic<bool> overlapped{false};
  answer = [&](const AlertMessage& message) {
    {
      const std::lock_guard lock(mutex);
      if (++at_once[std::string(message.target)] > 1) overlapped = true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const std::lock_guard lock(mutex);
    --at_once[std::string(message.target)];
    return SendResult{};
  };
  for (int i = 0; i < 30; ++i)
    add("org" + std::to_string(i % 3), "t" + std::to_string(i % 5), std::to_string(i));
  const auto deliverer = start();
  wait_for([&] { return count("status = 'delivered'") == 30; });
  deliverer->stop();
  CHECK(sent.size() == 30);
  CHECK_FALSE(overlapped);
  CHECK(deliverer->metrics().delivered.value() == 30);
}

TEST_CASE_FIXTURE(DelivererFixture, "what a deleted organization was to hear is not sent") {
  const std::string org = Sql::must(store->create_org("o", "pro", {})).id.text();
  add(org, "t", "before");
  {
    auto control = Sql::must(stores.take());
    REQUIRE(sink::delete_organization(*control, org).has_value());
  }
  add(org, "t", "after");
  add("another", "t", "theirs");
  const auto deliverer = start();
  wait_for([&] { return count("status = 'pending'") == 0; });
  deliverer->stop();
  CHECK(sent == std::vector<std::string>{"t theirs"});
  CHECK(count("status = 'failed' AND last_error = 'the organization was deleted'") == 2);
  CHECK(sql.integer("SELECT COUNT(*) FROM alert_events WHERE error = 'the organization was deleted'") == 2);
}

TEST_CASE_FIXTURE(DelivererFixture, "an organization has at most half of the workers") {
  std::atomic<int> busy{0}, most{0};
  std::atomic<bool> let_go{false};
  answer = [&](const AlertMessage& message) {
    if (message.body == "slow") {
      most = std::max(most.load(), ++busy);
      while (!let_go) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      --busy;
    }
    return SendResult{};
  };
  for (int i = 0; i < 8; ++i) add("slow", "s" + std::to_string(i), "slow");
  const auto deliverer = start(4);
  wait_for([&] { return busy == 2; });
  add("quick", "q", "quick");
  deliverer->wake();
  wait_for([&] { return count("body = 'quick' AND status = 'delivered'") == 1; });
  CHECK(busy == 2);
  let_go = true;
  wait_for([&] { return count("status = 'delivered'") == 9; });
  CHECK(most == 2);
}

TEST_CASE_FIXTURE(DelivererFixture, "a target that does not answer is left alone, others are not") {
  answer = [](const AlertMessage& message) {
    if (message.target != "away") return SendResult{};
    return SendResult{.kind = Kind::kNoAnswer, .error = "no answer"};
  };
  for (int i = 0; i < 10; ++i) add("org", "away", std::to_string(i));
  const auto deliverer = start();
  wait_for([&] {
    return count("next_at_us > " + std::to_string(system_clock().wall() + 20 * kMicrosPerSecond)) == 10;
  });
  add("org", "there", "x");
  deliverer->wake();
  wait_for([&] { return count("status = 'delivered'") == 1; });
  deliverer->stop();
  CHECK(count("attempts > 0") <= 4);  // three, and the one that is delivered
  CHECK(sql.integer("SELECT COUNT(*) FROM alert_events WHERE error = 'no answer'") >= 1);
}

TEST_CASE_FIXTURE(DelivererFixture, "what is refused, or too old, is given up") {
  answer = [](const AlertMessage& message) {
    return SendResult{
        .kind = message.body == "refused" ? Kind::kRefused : Kind::kNotNow, .status = 400, .error = "no"};
  };
  add("org", "a", "refused");
  add("org", "b", "old");
  const auto deliverer = start(4, 200'000, 500'000);
  wait_for([&] { return count("status = 'failed'") == 2; });
  CHECK(count("body = 'refused' AND attempts = 1") == 1);
  CHECK(count("body = 'old' AND attempts > 1") == 1);
}

TEST_CASE_FIXTURE(DelivererFixture, "a message that is cancelled, or of another key, stays in the queue") {
  answer = [](const AlertMessage&) { return SendResult{.kind = Kind::kCancelled, .error = "stopping"}; };
  add("org", "a", "cancelled");
  add("org", "b", "of another key", true);
  const auto deliverer = start(1);
  wait_for(
      [&] { return count("body = 'of another key' AND attempts = 0 AND next_at_us > created_at_us") == 1; });
  wait_for([&] {
    const std::lock_guard lock(mutex);
    return !sent.empty();
  });
  deliverer->stop();
  CHECK(count("status = 'pending'") == 2);
  CHECK(sql.integer("SELECT COUNT(*) FROM alert_events WHERE error IS NOT NULL") == 0);
}

}  // namespace
}  // namespace kavach::http
