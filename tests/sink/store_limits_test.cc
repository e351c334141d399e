// Limits in the store: what a node admitted, per period; what an administrator sets; and who hears of it.
#include <algorithm>
#include <limits>

#include "engine/calendar.h"
#include "engine/timestamp.h"
#include "tests/sink/store_fixture.h"

namespace kavach::sink::test {
namespace {

constexpr std::int64_t kInt64Max = std::numeric_limits<std::int64_t>::max();

WallMicros at(std::string_view text) {
  const auto t = parse_timestamp(text);
  REQUIRE(t.has_value());
  return *t;
}

// "org|period|number|events|cost|in|out|ms" of one row.
std::string line_of(const NodeUsage& usage) {
  std::string line = usage.org_id.text() + "|" + std::string(usage.period);
  for (const std::int64_t value :
       {usage.number, usage.events, usage.cost, usage.input_tokens, usage.output_tokens, usage.duration_ms}) {
    line += "|" + std::to_string(value);
  }
  return line;
}

struct LimitsFixture : StoreFixture {
  OrgRecord org = Sql::must(store->create_org("acme", "pro", {"key", "ak_dev_00000000", digest_of(1)}));

  std::vector<std::string> usage(const Uuid& node, WallMicros now) {
    std::vector<std::string> lines;
    const auto scanned = store->scan_usage(node, day_of(now), month_of(now),
                                           [&](const NodeUsage& row) { lines.push_back(line_of(row)); });
    REQUIRE(scanned.has_value());
    std::sort(lines.begin(), lines.end());
    return lines;
  }

  std::vector<std::string> agents(WallMicros since) {
    std::vector<std::string> lines;
    const auto scanned =
        store->scan_agents(since, [&](const Uuid& org_id, std::string_view name, WallMicros last_received) {
          lines.push_back(org_id.text() + "|" + std::string(name) + "|" + std::to_string(last_received));
        });
    REQUIRE(scanned.has_value());
    std::sort(lines.begin(), lines.end());
    return lines;
  }

  std::uint64_t version() { return Sql::must(store->directory_version()); }
  // How far `change` moves the directory's version.
  template <typename Change>
  std::uint64_t moved_by(Change change) {
    const std::uint64_t before = version();
    change();
    return version() - before;
  }
};

template <typename T>
std::string problem_of(const StoreResult<T>& result) {
  REQUIRE(result.has_error());
  CHECK_FALSE(result.error().retryable);
  return result.error().message;
}

}  // namespace

// --- use ---------------------------------------------------------------------------------------------------

TEST_CASE_FIXTURE(LimitsFixture, "an event counts on the day on which it was let in, not on its own") {
  const WallMicros midnight = at("2026-06-01T00:00:00Z");
  apply(make_batch(1, midnight - 1, {make_event("a", "", midnight - 1)}), 1);
  apply(make_batch(2, midnight, {make_event("a", "", midnight - 40 * kMicrosPerDay)}), 2);
  const std::string id = kOrg.text();
  CHECK(usage(kJournal, midnight - 1) == std::vector<std::string>{id + "|daily|20604|1|1500000|100|20|250",
                                                                  id + "|monthly|676|1|1500000|100|20|250",
                                                                  id + "|total|0|2|3000000|200|40|500"});
  CHECK(usage(kJournal, midnight) == std::vector<std::string>{id + "|daily|20605|1|1500000|100|20|250",
                                                              id + "|monthly|677|1|1500000|100|20|250",
                                                              id + "|total|0|2|3000000|200|40|500"});
}

TEST_CASE_FIXTURE(LimitsFixture,
                  "what is not stored counts nowhere: repetitions, and a transaction that failed") {
  const Batch batch =
      make_batch(1, clock.now, {make_event("a", "key", clock.now), make_event("a", "", clock.now)});
  apply(batch, 1);
  apply(batch, 1);
  apply(make_batch(2, clock.now, {make_event("a", "key", clock.now)}), 2);
  CHECK(sql.integer("SELECT events FROM node_usage WHERE period = 'total'") == 2);

  refuse_inserts("node_usage");
  const Batch next = make_batch(3, clock.now, {make_event("a", "", clock.now)});
  CHECK(store->apply(std::span<const Batch>(&next, 1), kJournal, 3).has_error());
  CHECK(Sql::must(store->position(kJournal)) == 2);
  CHECK(sql.integer("SELECT COUNT(*) FROM events") == 2);
  allow_inserts("node_usage");
  apply(next, 3);
  CHECK(sql.integer("SELECT events FROM node_usage WHERE period = 'total'") == 3);
}

TEST_CASE_FIXTURE(LimitsFixture, "the nodes of one store keep their use apart") {
  const Uuid other = numbered_id(1, 2);
  apply(make_batch(1, clock.now, {make_event("a", "", clock.now)}), 1);
  const Batch batch =
      make_batch(2, clock.now, {make_event("a", "", clock.now), make_event("b", "", clock.now)});
  Sql::must(store->apply(std::span<const Batch>(&batch, 1), other, 1));
  REQUIRE(usage(kJournal, clock.now).size() == 3);
  CHECK(usage(kJournal, clock.now)[2] == kOrg.text() + "|total|0|1|1500000|100|20|250");
  CHECK(usage(other, clock.now)[2] == kOrg.text() + "|total|0|2|3000000|200|40|500");
  CHECK(usage(numbered_id(1, 3), clock.now).empty());
}

TEST_CASE_FIXTURE(LimitsFixture, "use stops at the largest integer") {
  Event event = make_event("a", "", clock.now);
  event.cost = event.input_tokens = event.output_tokens = event.duration_ms = kInt64Max - 1;
  for (std::uint32_t i = 1; i <= 3; ++i) apply(make_batch(i, clock.now, {event, event}), i);
  const std::string max = std::to_string(kInt64Max);
  CHECK(usage(kJournal, clock.now)[2] ==
        kOrg.text() + "|total|0|6|" + max + "|" + max + "|" + max + "|" + max);
}

// The periods once more, by the database's own calendar over the events.
TEST_CASE_FIXTURE(LimitsFixture,
                  "use equals the sums over the stored events, for random batches over years") {
  const std::uint64_t seed = 20'260'726;
  CAPTURE(seed);
  Random random(seed);
  const auto below = [&](std::uint64_t n) { return static_cast<std::int64_t>(random.next() % n); };
  const WallMicros first = at("2023-12-30T00:00:00Z");
  std::vector<std::string> keys(200);
  for (std::size_t i = 0; i < keys.size(); ++i) keys[i] = i % 3 == 0 ? "" : "k" + std::to_string(i);
  for (std::uint32_t seq = 1; seq <= 40; ++seq) {
    std::vector<Batch> batches;
    for (std::int64_t b = 0; b < 4; ++b) {
      const WallMicros received = first + below(800 * 86'400) * kMicrosPerSecond;
      std::vector<Event> events;
      for (std::int64_t e = 0; e <= below(8); ++e) {
        events.push_back(make_event("a", keys[static_cast<std::size_t>(below(keys.size()))],
                                    received - below(kMicrosPerDay)));
        events.back().cost = below(1'000'000);
        events.back().input_tokens = below(5'000);
        events.back().output_tokens = below(5'000);
        events.back().duration_ms = below(3'000);
      }
      Batch batch = make_batch(seq * 100 + static_cast<std::uint32_t>(b), received, std::move(events));
      batch.org_id = numbered_id(2, static_cast<std::uint32_t>(b % 2));
      batches.push_back(std::move(batch));
    }
    Sql::must(store->apply(batches, kJournal, seq));
  }
  const std::string when = "received_at_us / 1000000, 'unixepoch'";
  const std::string sums =
      "COUNT(*), SUM(cost_nano), SUM(input_tokens), SUM(output_tokens), SUM(duration_ms) FROM events GROUP "
      "BY 1, 2";
  const auto stored = [&](const std::string& period) {
    return sql.lines(
        "SELECT org_id, number, events, cost_nano, input_tokens, output_tokens, duration_ms "
        "FROM node_usage WHERE period = '" +
            period + "' ORDER BY 1, 2",
        7);
  };
  CHECK(stored("daily").size() > 100);
  CHECK(stored("daily") ==
        sql.lines(
            "SELECT org_id, unixepoch(" + when + ", 'start of day') / 86400, " + sums + " ORDER BY 1, 2", 7));
  CHECK(stored("monthly") ==
        sql.lines("SELECT org_id, (strftime('%Y', " + when + ") - 1970) * 12 + strftime('%m', " + when +
                      ") - 1, " + sums + " ORDER BY 1, 2",
                  7));
  CHECK(stored("total") == sql.lines("SELECT org_id, 0, " + sums + " ORDER BY 1, 2", 7));
}

TEST_CASE_FIXTURE(LimitsFixture,
                  "days and months are forgotten after two more, in slices; the total never is") {
  const WallMicros start = at("2026-01-31T12:00:00Z");
  for (std::uint32_t i = 0; i < 5; ++i) {  // of events too old for minutes
    apply(make_batch(i, start + i * kMicrosPerDay, {make_event("a", "", start - 30 * kMicrosPerDay)}), i + 1);
  }
  const auto kept = [&] { return sql.lines("SELECT period, number FROM node_usage ORDER BY 1, 2", 2); };
  const std::int64_t day = day_of(start);
  const std::int64_t month = month_of(start);
  const auto row = [](const char* period, std::int64_t number) {
    return period + ("|" + std::to_string(number));
  };

  clock.now = start + 2 * kMicrosPerDay;
  CHECK(Sql::must(store->prune(0, 10)) == 0);
  clock.now = start + 4 * kMicrosPerDay;
  CHECK(Sql::must(store->prune(0, 1)) == 1);
  CHECK(Sql::must(store->prune(0, 1)) == 1);
  CHECK(Sql::must(store->prune(0, 1)) == 0);
  CHECK(kept() == std::vector<std::string>{row("daily", day + 2), row("daily", day + 3),
                                           row("daily", day + 4), row("monthly", month),
                                           row("monthly", month + 1), "total|0"});
  clock.now = at("2026-04-01T00:00:00Z");
  CHECK(Sql::must(store->prune(0, 10)) == 3 + 1);
  CHECK(kept() == std::vector<std::string>{row("monthly", month + 1), "total|0"});
}

TEST_CASE_FIXTURE(LimitsFixture,
                  "an agent is active from the moment of acceptance, whatever its events say") {
  const WallMicros long_ago = clock.now - 30 * kMicrosPerDay;
  apply(make_batch(1, clock.now, {make_event("late", "", long_ago), make_event("both", "", long_ago)}), 1);
  apply(make_batch(2, clock.now - 5, {make_event("both", "", clock.now - 5)}), 2);
  apply(make_batch(3, clock.now - 9, {make_event("early", "", clock.now)}), 3);
  Sql::must(store->kill_agent(org.id, "never sent", ""));
  const std::string now = "|" + std::to_string(clock.now);
  CHECK(agents(clock.now - 8) ==
        std::vector<std::string>{kOrg.text() + "|both" + now, kOrg.text() + "|late" + now});
  CHECK(agents(clock.now - 9).size() == 3);
}

// --- who hears of a change ---------------------------------------------------------------------------------

TEST_CASE_FIXTURE(LimitsFixture, "storing events does not make anybody load the directory again") {
  Sql::must(store->kill_agent(org.id, "killed", "x"));
  CHECK(moved_by([&] {
          Batch batch = make_batch(1, clock.now,
                                   {make_event("new", "k", clock.now), make_event("killed", "", clock.now)});
          batch.org_id = org.id;
          apply(batch, 1);
          apply(batch, 2);
          Sql::must(store->prune(clock.now + 1, 10));
        }) == 0);
}

TEST_CASE_FIXTURE(LimitsFixture,
                  "every change of limits, budgets and killed agents is heard of once, and nothing else") {
  const auto change = [&](const OrgChange& wanted) {
    return moved_by([&] { Sql::must(store->change_org(org.id, wanted)); });
  };
  CHECK(change({.events_per_day = OwnLimit(5)}) == 1);
  CHECK(change({.events_per_day = OwnLimit(5)}) == 0);
  CHECK(change({.events_per_day = OwnLimit(kNoLimit), .agents_max = OwnLimit(2)}) == 1);
  CHECK(change({.events_per_day = OwnLimit(), .agents_max = OwnLimit()}) == 1);
  CHECK(change({.tier = "pro", .subscription_status = "active"}) == 0);

  const auto set_budget = [&](double limit) {
    return moved_by([&] { Sql::must(store->upsert_budget(org.id, "cost", "daily", limit)); });
  };
  CHECK(set_budget(5) == 1);
  CHECK(set_budget(5) == 0);
  CHECK(set_budget(6) == 1);
  CHECK(moved_by([&] { Sql::must(store->delete_budget(org.id, "cost", "daily")); }) == 1);
  CHECK(moved_by([&] {
          for (const char* row : {"('a', 'ak', 'agent')", "('b', 'lg', '')"}) {
            sql.execute(
                ("INSERT INTO budgets (id, kind, agent_name, org_id, period, limit_value, created_at_us, "
                 "updated_at_us) SELECT v.column1, v.column2, v.column3, '" +
                 org.id.text() + "', 'daily', 1, 0, 0 FROM (VALUES " + row + ") AS v")
                    .c_str());
          }
          sql.execute("UPDATE budgets SET limit_value = 2");
          sql.execute("DELETE FROM budgets WHERE kind = 'lg'");
        }) == 0);
  CHECK(moved_by([&] { sql.execute("UPDATE budgets SET agent_name = ''"); }) == 1);

  CHECK(moved_by([&] { Sql::must(store->kill_agent(org.id, "a", "")); }) == 1);
  CHECK(moved_by([&] { Sql::must(store->kill_agent(org.id, "a", "again")); }) == 0);
  CHECK(moved_by([&] { Sql::must(store->reactivate_agent(org.id, "a")); }) == 1);
  CHECK(moved_by([&] { Sql::must(store->reactivate_agent(org.id, "a")); }) == 0);
  CHECK(moved_by([&] { sql.execute("DELETE FROM agents"); }) == 0);
  Sql::must(store->kill_agent(org.id, "a", ""));
  CHECK(moved_by([&] { sql.execute("DELETE FROM agents"); }) == 1);
}

TEST_CASE_FIXTURE(LimitsFixture, "the directory carries limits, budgets and killed agents") {
  Sql::must(store->create_org("other", "free", {"key", "ak_dev_00000001", digest_of(2)}));
  Sql::must(
      store->change_org(org.id, {.events_per_day = OwnLimit(0), .burst_per_minute = OwnLimit(kNoLimit)}));
  Sql::must(store->upsert_budget(org.id, "cost", "monthly", 0.1));
  Sql::must(store->kill_agent(org.id, "b'ot \xe2\x9c\x93", ""));
  apply(make_batch(1, clock.now, {make_event("alive", "", clock.now)}), 1);
  sql.execute("INSERT INTO agents (org_id, name, first_seen_us, killed_at_us) VALUES ('no uuid', 'x', 0, 0)");

  const Directory directory = Sql::must(store->load_directory());
  REQUIRE(directory.orgs.size() == 2);
  for (const OrgRecord& record : directory.orgs) {
    CHECK(record.limits.events_per_day == (record.id == org.id ? OwnLimit(0) : OwnLimit()));
    CHECK(record.limits.agents_max == OwnLimit());
    CHECK(record.limits.burst_per_minute == (record.id == org.id ? OwnLimit(kNoLimit) : OwnLimit()));
  }
  REQUIRE(directory.budgets.size() == 1);
  CHECK(directory.budgets[0].org_id == org.id);
  CHECK(directory.budgets[0].type == "cost");
  CHECK(directory.budgets[0].period == "monthly");
  CHECK(directory.budgets[0].limit == 0.1);
  CHECK(directory.budgets[0].unit == "usd");
  REQUIRE(directory.killed_agents.size() == 1);
  CHECK(directory.killed_agents[0].org_id == org.id);
  CHECK(directory.killed_agents[0].name == "b'ot \xe2\x9c\x93");
}

// --- administration ----------------------------------------------------------------------------------------

TEST_CASE_FIXTURE(LimitsFixture, "a change touches what it names, and its answer is what is then in force") {
  const OrgDetails changed = Sql::must(
      store->change_org(org.id, {.tier = "max", .events_per_day = OwnLimit(7), .agents_max = OwnLimit(9)}));
  CHECK(changed.org.tier == "max");
  CHECK(changed.org.subscription_status == "active");
  CHECK(changed.org.limits.events_per_day == OwnLimit(7));
  CHECK(sql.text("SELECT tier FROM subscriptions") == "max");

  const OrgDetails again = Sql::must(store->change_org(org.id, {.events_per_day = OwnLimit()}));
  CHECK(again.org.tier == "max");
  CHECK(again.org.limits.events_per_day == OwnLimit());
  CHECK(again.org.limits.agents_max == OwnLimit(9));
  CHECK(Sql::must(store->show_org(org.id)).org.limits.agents_max == OwnLimit(9));

  Sql::must(store->change_org(org.id, {.agents_max = OwnLimit()}));
  CHECK(sql.integer("SELECT COUNT(*) FROM org_limits") == 0);
}

TEST_CASE_FIXTURE(LimitsFixture, "a subscription keeps the time at which its state began") {
  const auto times = [&] {
    return sql.lines("SELECT status, paused_at_us, cancelled_at_us FROM subscriptions", 3).front();
  };
  const auto set = [&](const char* status) {
    ++clock.now;
    return Sql::must(store->change_org(org.id, {.subscription_status = status})).org.subscription_status;
  };
  const WallMicros start = clock.now;
  CHECK(set("paused") == "paused");
  CHECK(set("paused") == "paused");
  CHECK(times() == "paused|" + std::to_string(start + 1) + "|");
  CHECK(set("cancelled") == "cancelled");
  CHECK(times() == "cancelled||" + std::to_string(start + 3));
  CHECK(set("active") == "active");
  CHECK(times() == "active||");
  sql.execute("DELETE FROM subscriptions");
  CHECK(set("paused") == "paused");
  CHECK(sql.text("SELECT tier FROM subscriptions") == "pro");
}

TEST_CASE_FIXTURE(LimitsFixture, "a change that fails half-way has changed nothing") {
  refuse_inserts("org_limits");
  CHECK(store
            ->change_org(org.id,
                         {.tier = "free", .subscription_status = "paused", .events_per_day = OwnLimit(1)})
            .has_error());
  const OrgDetails details = Sql::must(store->show_org(org.id));
  CHECK(details.org.tier == "pro");
  CHECK(details.org.subscription_status == "active");
}

TEST_CASE_FIXTURE(LimitsFixture, "a number below -1 is no limit") {
  CHECK(store->change_org(org.id, {.burst_per_minute = OwnLimit(-2)}).has_error());
}

TEST_CASE_FIXTURE(LimitsFixture, "an organization has one budget per type and period") {
  const BudgetRecord first = Sql::must(store->upsert_budget(org.id, "cost", "daily", 50));
  const BudgetRecord second = Sql::must(store->upsert_budget(org.id, "cost", "daily", 12.5));
  CHECK(first.id == second.id);
  CHECK(first.limit == 50);
  CHECK(second.limit == 12.5);
  CHECK(Sql::must(store->upsert_budget(org.id, "duration", "total", 1)).unit == "ms");
  CHECK(Sql::must(store->upsert_budget(org.id, "tokens_input", "monthly", 1)).unit == "tokens");
  CHECK(Sql::must(store->upsert_budget(org.id, "calls", "daily", 1)).unit == "calls");
  const auto other = Sql::must(store->create_org("other", "free", {"key", "ak_dev_00000001", digest_of(2)}));
  Sql::must(store->upsert_budget(other.id, "cost", "daily", 1));

  std::string listed;
  for (const BudgetRecord& budget : Sql::must(store->list_budgets(org.id))) {
    listed += budget.type + " " + budget.period + ", ";
  }
  CHECK(listed == "calls daily, cost daily, duration total, tokens_input monthly, ");
  CHECK(Sql::must(store->show_org(org.id)).budgets.size() == 4);

  sql.execute(("INSERT INTO budget_counters (budget_id, period_key, used, updated_at_us) VALUES ('" +
               first.id + "', '2026-01-01', 1, 1)")
                  .c_str());
  CHECK(Sql::must(store->delete_budget(org.id, "cost", "daily")).id == first.id);
  CHECK(sql.integer("SELECT COUNT(*) FROM budget_counters") == 0);
  CHECK(Sql::must(store->list_budgets(org.id)).size() == 3);
  CHECK(Sql::must(store->list_budgets(other.id)).size() == 1);
}

TEST_CASE_FIXTURE(LimitsFixture, "what cannot be done says why, and changes nothing") {
  CHECK(problem_of(store->upsert_budget(org.id, "loops", "daily", 1)) ==
        "'loops' is no type of an organization's budget");
  CHECK(problem_of(store->upsert_budget(org.id, "cost", "per_run", 1)) ==
        "'per_run' is no period of an organization's budget");
  for (const double limit :
       {0.0, -1.0, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    CHECK(problem_of(store->upsert_budget(org.id, "cost", "daily", limit)).find("is no limit of a budget") !=
          std::string::npos);
  }
  CHECK(problem_of(store->delete_budget(org.id, "cost", "daily")) ==
        "organization " + org.id.text() + " has no budget of type 'cost' and period 'daily'");
  CHECK(problem_of(store->reactivate_agent(org.id, "a")) ==
        "organization " + org.id.text() + " has no agent 'a'");
  CHECK(sql.integer("SELECT (SELECT COUNT(*) FROM budgets) + (SELECT COUNT(*) FROM agents)") == 0);
}

TEST_CASE_FIXTURE(LimitsFixture, "an organization that is not there, or deleted, takes no change") {
  const auto refuses_all = [&](const Uuid& id) {
    const std::string reason = "there is no organization " + id.text();
    CHECK(problem_of(store->show_org(id)) == reason);
    CHECK(problem_of(store->change_org(id, {.tier = "max"})) == reason);
    CHECK(problem_of(store->upsert_budget(id, "cost", "daily", 1)) == reason);
    CHECK(problem_of(store->delete_budget(id, "cost", "daily")) == reason);
    CHECK(problem_of(store->list_budgets(id)) == reason);
    CHECK(problem_of(store->kill_agent(id, "a", "")) == reason);
    CHECK(problem_of(store->reactivate_agent(id, "a")) == reason);
  };
  refuses_all(numbered_id(2, 99));
  sql.execute("UPDATE organizations SET deleted_at_us = 1");
  refuses_all(org.id);
  CHECK(sql.integer("SELECT COUNT(*) FROM agents") == 0);
  CHECK(sql.text("SELECT tier FROM organizations") == "pro");
}

TEST_CASE_FIXTURE(LimitsFixture, "an agent can be killed before its first event, and twice") {
  const AgentState killed = Sql::must(store->kill_agent(org.id, "a", "spends too much"));
  const WallMicros first = clock.now;
  clock.now += 10;
  CHECK(killed.killed_at == first);
  CHECK(Sql::must(store->kill_agent(org.id, "a", "")).kill_reason == "spends too much");
  const AgentState again = Sql::must(store->kill_agent(org.id, "a", "leaks"));
  CHECK(again.killed_at == first);
  CHECK(again.kill_reason == "leaks");
  CHECK(Sql::must(store->show_org(org.id)).killed_agents == std::vector<std::string>{"a"});

  const AgentState alive = Sql::must(store->reactivate_agent(org.id, "a"));
  CHECK_FALSE(alive.killed_at.has_value());
  CHECK(alive.kill_reason.empty());
  CHECK(Sql::must(store->reactivate_agent(org.id, "a")).name == "a");
  CHECK(Sql::must(store->show_org(org.id)).killed_agents.empty());
}

}  // namespace kavach::sink::test
