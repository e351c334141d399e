// Alert rules: which are crossed, and that each fires once.
#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

#include "engine/calendar.h"
#include "sink/store/control/alert_rules.h"
#include "tests/sink/store_fixture.h"

namespace kavach::sink {
namespace {

using namespace kavach::sink::test;

struct RulesFixture : StoreFixture {
  std::unique_ptr<ControlStore> control = open_control();
  std::string org =
      Sql::must(store->create_org("acme", "max", {.name = "k", .prefix = "p", .digest = digest_of(1)}))
          .id.text();
  std::uint32_t batches = 0;

  void add_rule(const std::string& agent, const std::string& channel, const std::string& threshold,
                const std::string& type = "cost", bool active = true) {
    sql.execute(("INSERT INTO alert_configs (id, kind, org_id, agent_name, channels, threshold, budget_type, "
                 "is_active, created_at_us) VALUES ('" +
                 numbered_id(7, ++rules).text() + "', 'ak', '" + org + "', '" + agent + "', '" + channel +
                 "', " + threshold + ", '" + type + "', " + (active ? "1" : "0") + ", 1)")
                    .c_str());
  }
  void add_budget(const std::string& agent, const std::string& period, const std::string& limit,
                  const std::string& type = "cost") {
    sql.execute(("INSERT INTO budgets (id, kind, org_id, agent_name, budget_type, period, limit_value, "
                 "created_at_us, updated_at_us) VALUES ('" +
                 numbered_id(8, ++rules).text() + "', 'ak', '" + org + "', '" + agent + "', '" + type +
                 "', '" + period + "', " + limit + ", 1, 1)")
                    .c_str());
  }
  void spend(const std::string& agent, std::int64_t dollars, const std::string& run = {}) {
    ++batches;
    const std::string key = std::to_string(batches);
    Event event = make_event(agent, key, clock.now);
    event.cost = dollars * kNanoPerDollar;
    event.run_id = run;
    Batch batch = make_batch(batches, clock.now, {event});
    batch.org_id = *Uuid::parse(org);
    apply(batch, batches);
  }
  std::vector<CrossedRule> due(const std::string& agent, std::span<const RunUse> runs = {}) {
    return Sql::must(find_crossed_rules(*control, org, agent, runs)).due;
  }
  // As "channel threshold period key".
  std::vector<std::string> due_words(const std::string& agent, std::span<const RunUse> runs = {}) {
    std::vector<std::string> words;
    for (const CrossedRule& rule : due(agent, runs)) {
      words.push_back(rule.rule.channel + " " + std::to_string(rule.rule.threshold).substr(0, 4) + " " +
                      rule.period_key);
    }
    return words;
  }
  bool fire_one(const CrossedRule& rule, Firing firing = {}) {
    return Sql::must(fire(*control, org, rule, firing));
  }

  std::uint32_t rules = 0;
};

using Words = std::vector<std::string>;

TEST_CASE_FIXTURE(RulesFixture, "a rule is crossed from its threshold on, the lowest first") {
  add_budget("a", "daily", "10");
  add_rule("a", "slack", "0.8");
  add_rule("a", "email", "0.5");
  add_rule("a", "webhook", "0.1", "calls");          // there is no such budget
  add_rule("a", "pagerduty", "0.1", "cost", false);  // it is off
  add_rule("b", "slack", "0.1");                     // another's
  CHECK(due("a").empty());
  spend("a", 4);
  CHECK(due("a").empty());
  spend("a", 4);
  // 2027-01-15 08:00 UTC
  CHECK(due_words("a") == Words{"email 0.50 2027-01-15", "slack 0.80 2027-01-15"});
  CHECK(due("a")[0].budget.used == doctest::Approx(8));
  CHECK(due("b").empty());
}

TEST_CASE_FIXTURE(RulesFixture, "each period of a budget has its key and its use") {
  add_rule("a", "slack", "1");
  for (const char* period : {"daily", "monthly", "total"}) add_budget("a", period, "10");
  spend("a", 10);
  CHECK(due_words("a") == Words{"slack 1.00 2027-01-15", "slack 1.00 2027-01", "slack 1.00 total"});
  for (const CrossedRule& rule : due("a")) CHECK(fire_one(rule));
  clock.now += kMicrosPerDay;
  CHECK(due("a").empty());
  spend("a", 10);
  CHECK(due_words("a") == Words{"slack 1.00 2027-01-16"});
  clock.now += 20 * kMicrosPerDay;
  spend("a", 10);
  CHECK(due_words("a") == Words{"slack 1.00 2027-02-05", "slack 1.00 2027-02"});
}

TEST_CASE_FIXTURE(RulesFixture, "it fires once, and not again within five minutes of its last time") {
  add_rule("a", "slack", "0.5");
  add_budget("a", "daily", "10");
  clock.now = start_of_day(day_of(clock.now) + 1) - kMicrosPerSecond;
  spend("a", 6);
  const CrossedRule rule = due("a").at(0);
  CHECK(fire_one(rule));
  CHECK_FALSE(fire_one(rule));
  CHECK(due("a").empty());
  // The next day has just begun.
  clock.now += 2 * kMicrosPerSecond;
  spend("a", 6);
  auto crossed = Sql::must(find_crossed_rules(*control, org, "a", {}));
  CHECK(crossed.due.empty());
  CHECK(crossed.some_wait);
  CrossedRule early = rule;
  early.period_key = "2027-01-16";
  early.at = clock.now;
  CHECK_FALSE(fire_one(early));
  clock.now += kAlertCooldownUs;
  REQUIRE(due_words("a") == Words{"slack 0.50 2027-01-16"});
  CHECK(fire_one(due("a").at(0)));
  CHECK(sql.integer("SELECT COUNT(*) FROM alert_events") == 2);
}

TEST_CASE_FIXTURE(RulesFixture, "runs are looked at one by one") {
  add_rule("a", "slack", "1", "calls");
  add_budget("a", "per_run", "2", "calls");
  CHECK(Sql::must(has_run_budgets(*control, org)));
  spend("a", 1, "one");
  spend("a", 1, "two");
  spend("a", 1, "two");
  const std::vector<std::string> ids{"one", "two", "nobody"};
  const auto runs = Sql::must(runs_by_id(*control, org, ids));
  CHECK(runs.size() == 2);
  CHECK(due_words("a", runs) == Words{"slack 1.00 run:two"});
  CHECK(due("a").empty());
  const auto recent = Sql::must(recent_runs(*control, org, "a", clock.now));
  CHECK(recent.size() == 2);
  CHECK(Sql::must(recent_runs(*control, org, "a", clock.now + 1)).empty());
}

TEST_CASE_FIXTURE(RulesFixture, "an organization's rule counts all of its agents") {
  add_rule("", "slack", "0.5");
  add_budget("", "daily", "10");
  spend("a", 3);
  CHECK(due("").empty());
  spend("b", 3);
  CHECK(due_words("") == Words{"slack 0.50 2027-01-15"});
}

TEST_CASE_FIXTURE(RulesFixture, "what fires leaves an event, a delivery and, if it is to, a killed agent") {
  add_rule("a", "slack", "0.5");
  add_rule("a", "kill", "1");
  add_budget("a", "daily", "10");
  spend("a", 10);
  spend("b", 1);
  auto rules_due = due("a");
  REQUIRE(rules_due.size() == 2);
  Delivery delivery;
  delivery.body = "{}";
  CHECK(fire_one(rules_due[0],
                 {.level = "WARN", .message = "m", .error = {}, .delivery = delivery, .announcement = "a"}));
  CHECK(fire_one(
      rules_due[1],
      {.level = "CRITICAL", .message = "k", .error = {}, .delivery = {}, .announcement = {}, .kills = true}));
  CHECK(sql.text(
            "SELECT d.channel || d.org_id || e.message || e.delivered FROM deliveries d JOIN alert_events e "
            "ON e.id = d.ref_id") == "slack" + org + "m0");
  CHECK(sql.text("SELECT body FROM deliveries WHERE channel = 'kafka' AND ref_id IS NULL") == "a");
  CHECK(sql.integer("SELECT delivered FROM alert_events WHERE channel = 'kill'") == 1);
  CHECK(sql.integer("SELECT COUNT(*) FROM agents WHERE killed_at_us IS NOT NULL") == 1);
  CHECK(sql.text("SELECT name FROM agents WHERE kill_reason = 'alert rule'") == "a");
}

TEST_CASE_FIXTURE(RulesFixture, "whoever stores says whose the events were") {
  std::vector<std::string> told;
  store->set_usage_listener([&](std::span<const UsedName> agents, std::span<const UsedName> runs) {
    for (const UsedName& used : agents) told.push_back("agent " + std::string(used.name));
    for (const UsedName& used : runs) told.push_back("run " + std::string(used.name));
  });
  spend("a", 1, "r");
  CHECK(told == Words{"agent a", "run r"});
  --batches;
  spend("a", 1, "r");  // the same once more: nothing is stored
  CHECK(told.size() == 2);
}

}  // namespace
}  // namespace kavach::sink
