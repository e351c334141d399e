// Storing batches: each event once, whatever is repeated, and aggregates that equal the sums over the events.
#include <sys/wait.h>
#include <unistd.h>

#include <limits>

#include "engine/money.h"
#include "tests/sink/store_fixture.h"

namespace kavach::sink::test {
namespace {

constexpr std::int64_t kInt64Max = std::numeric_limits<std::int64_t>::max();

}  // namespace

TEST_CASE_FIXTURE(StoreFixture, "an event is stored with every field that came with it") {
  Event event = make_event("scout", "key-1", clock.now - 5);
  event.run_id = "run-1";
  event.prompt = "Say hi";
  event.is_error = true;
  event.partial = true;
  const Batch batch = make_batch(1, clock.now, {event});
  const ApplyOutcome outcome = apply(batch, 9);
  CHECK(outcome.stored == 1);
  CHECK(outcome.duplicates == 0);
  CHECK(
      sql.lines(
          "SELECT id, org_id, project_id, ingest_system, ts_us, received_at_us, agent_name, provider, model, "
          "run_id, input_tokens, output_tokens, cost_nano, cost_source, duration_ms, is_error, dedup_key, "
          "tag_set_id, prompt, metadata FROM events",
          20) == std::vector<std::string>{
                     event_id(batch.id, 0).text() + "|" + kOrg.text() + "|" + kProject.text() +
                     "|ak|1799999999999995|1800000000000000|scout|openai|gpt-4o|run-1|100|20|1500000|client|"
                     "250|1|key-1|0|Say hi|{\"partial\":true}"});
  CHECK(Sql::must(store->position(kJournal)) == 9);
}

TEST_CASE_FIXTURE(StoreFixture, "what an event does not have is NULL") {
  apply(make_batch(1, clock.now, {make_event("a", "", clock.now)}), 1);
  CHECK(sql.integer(
            "SELECT COUNT(*) FROM events WHERE run_id IS NULL AND dedup_key IS NULL AND prompt IS NULL AND "
            "metadata IS NULL AND error IS NULL AND user_id IS NULL AND cached_tokens IS NULL") == 1);
  CHECK(sql.integer("SELECT COUNT(*) FROM dedup_keys") == 0);
  CHECK(sql.integer("SELECT COUNT(*) FROM runs") == 0);
}

TEST_CASE_FIXTURE(StoreFixture, "names keep their quotes, their unicode and even a NUL") {
  using namespace std::string_view_literals;
  const auto name = "Robert'); DROP TABLE events;-- \"x\" \xe2\x9c\x93 \xf0\x9f\x90\x8d a\0b"sv;
  apply(make_batch(1, clock.now, {make_event(name, name, clock.now)}), 1);
  auto select = Sql::must(sql.connection().prepare("SELECT agent_name, dedup_key FROM events"));
  auto rows = select.rows();
  REQUIRE(Sql::must(rows.next()));
  CHECK(rows.text(0) == as_stored(name));
  CHECK(rows.text(1) == as_stored(name));
}

TEST_CASE_FIXTURE(StoreFixture, "texts are ordered as bytes") {
  apply(make_batch(
            1, clock.now,
            {make_event("b", "", clock.now), make_event("\xc3\xa4", "", clock.now),
             make_event("B", "", clock.now), make_event("a", "", clock.now), make_event("z", "", clock.now)}),
        1);
  CHECK(sql.lines("SELECT name FROM agents ORDER BY name", 1) ==
        std::vector<std::string>{"B", "a", "b", "z", "\xc3\xa4"});
}

TEST_CASE_FIXTURE(StoreFixture, "a batch that is applied again changes nothing, with keys or without") {
  const Batch batch =
      make_batch(1, clock.now, {make_event("a", "key", clock.now), make_event("a", "", clock.now)});
  apply(batch, 1);
  const ApplyOutcome again = apply(batch, 1);
  CHECK(again.stored == 0);
  CHECK(again.duplicates == 2);
  CHECK(sql.integer("SELECT COUNT(*) FROM events") == 2);
  CHECK(sql.integer("SELECT events FROM usage_hourly") == 2);
  CHECK(sql.integer("SELECT total_events FROM agents") == 2);
}

TEST_CASE_FIXTURE(StoreFixture, "what is new is stored beside what is not, with keys or without") {
  const Batch known =
      make_batch(1, clock.now, {make_event("a", "\"k\\1\"", clock.now), make_event("a", "", clock.now)});
  const Batch mixed = make_batch(2, clock.now,
                                 {make_event("a", "{k,2}", clock.now), make_event("a", "\"k\\1\"", clock.now),
                                  make_event("a", "", clock.now)});
  apply(known, 1);
  const ApplyOutcome outcome = Sql::must(store->apply(std::vector<Batch>{known, mixed}, kJournal, 2));
  CHECK(outcome.stored == 2);
  CHECK(outcome.duplicates == 3);
  CHECK(sql.integer("SELECT COUNT(*) FROM events") == 4);
  CHECK(sql.integer("SELECT COUNT(*) FROM dedup_keys") == 2);
  CHECK(sql.integer("SELECT events FROM usage_hourly") == 4);
}

TEST_CASE_FIXTURE(StoreFixture,
                  "a frame that is read again after its keys were forgotten is still recognised") {
  const Batch batch = make_batch(1, clock.now, {make_event("a", "key", clock.now)});
  apply(batch, 1);
  sql.execute("DELETE FROM dedup_keys");
  CHECK(apply(batch, 1).duplicates == 1);
  CHECK(sql.integer("SELECT events FROM usage_hourly") == 1);
}

TEST_CASE_FIXTURE(StoreFixture,
                  "of events with the same key the first one counts, within a batch and across batches") {
  Event first = make_event("a", "key", clock.now);
  Event second = make_event("b", "key", clock.now);
  const ApplyOutcome one = apply(make_batch(1, clock.now, {first, second}), 1);
  CHECK(one.stored == 1);
  CHECK(one.duplicates == 1);
  CHECK(apply(make_batch(2, clock.now, {second}), 2).duplicates == 1);
  CHECK(sql.lines("SELECT name, total_events FROM agents", 2) == std::vector<std::string>{"a|1"});
  CHECK(sql.integer("SELECT SUM(events) FROM usage_daily_platform") == 1);
}

TEST_CASE_FIXTURE(StoreFixture, "a key is new again behind its window, pruned or not") {
  constexpr std::int64_t kWindow = 168 * kMicrosPerHour;
  store = open(kWindow);
  std::uint32_t number = 0;
  const auto send = [&](WallMicros at) {
    ++number;
    return apply(make_batch(number, at, {make_event("a", "key", at)}), number).stored;
  };
  const WallMicros first = clock.now;
  CHECK(send(first) == 1);
  CHECK(send(first + kWindow) == 0);
  CHECK(send(first + kWindow + 1) == 1);
  // From then on that one counts, also for what was received before it and is stored late.
  CHECK(send(first + kWindow) == 0);
  CHECK(send(first + 2 * kWindow) == 0);
  CHECK(sql.integer("SELECT COUNT(*) FROM events") == 2);
  CHECK(sql.integer("SELECT SUM(events) FROM usage_hourly") == 2);
  // A frame that is read again is still recognised.
  CHECK(apply(make_batch(3, first + kWindow + 1, {make_event("a", "key", first + kWindow + 1)}), 3).stored ==
        0);
  CHECK(apply(make_batch(1, first, {make_event("a", "key", first)}), 1).stored == 0);
}

TEST_CASE_FIXTURE(StoreFixture, "the same key in two projects names two events") {
  Batch other = make_batch(2, clock.now, {make_event("a", "key", clock.now)});
  other.project_id = numbered_id(3, 2);
  apply(make_batch(1, clock.now, {make_event("a", "key", clock.now)}), 1);
  CHECK(apply(other, 2).stored == 1);
}

TEST_CASE_FIXTURE(StoreFixture, "the same keys from two processes at once are stored once") {
  std::vector<std::string> keys;
  for (int i = 0; i < 200; ++i) keys.push_back("key-" + std::to_string(i));
  const auto child = [&](std::uint32_t number) {
    const std::unique_ptr<Store> own = open(kRememberForEver);
    for (std::uint32_t round = 0; round < 20; ++round) {
      std::vector<Event> events;
      for (std::size_t i = 0; i < 10; ++i)
        events.push_back(make_event("a", keys[round * 10 + i], 1'800'000'000));
      const Batch batch = make_batch(number * 1000 + round, 1'800'000'000, std::move(events));
      if (!own->apply(std::span<const Batch>(&batch, 1), numbered_id(1, number), round + 1)) ::_exit(3);
    }
    ::_exit(0);
  };
  pid_t children[2];
  for (std::uint32_t i = 0; i < 2; ++i) {
    children[i] = ::fork();
    if (children[i] == 0) child(i + 1);
  }
  for (const pid_t pid : children) {
    int status = 0;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    CHECK(status == 0);
  }
  CHECK(sql.integer("SELECT COUNT(*) FROM events") == 200);
  CHECK(sql.integer("SELECT total_events FROM agents") == 200);
}

TEST_CASE_FIXTURE(StoreFixture, "sums stop at the largest integer, in memory and in the table") {
  Event event = make_event("a", "", clock.now);
  event.run_id = "r";
  event.cost = event.input_tokens = event.output_tokens = event.duration_ms = kInt64Max - 1;
  event.is_error = true;
  for (std::uint32_t i = 1; i <= 3; ++i) apply(make_batch(i, clock.now, {event, event}), i);

  const auto all_are_max = [&](const std::string& table, const std::vector<std::string>& columns) {
    for (const std::string& column : columns) {
      CAPTURE(column);
      CHECK(sql.text("SELECT " + type_of(column) + " FROM " + table) == kInteger);
      CHECK(sql.integer("SELECT " + column + " FROM " + table) == kInt64Max);
    }
  };
  all_are_max("usage_minute", {"cost_nano", "input_tokens", "output_tokens", "duration_ms"});
  all_are_max("usage_hourly",
              {"cost_nano", "error_cost_nano", "input_tokens", "output_tokens", "duration_ms"});
  all_are_max("usage_hourly_dim", {"cost_nano", "input_tokens", "output_tokens"});
  all_are_max("usage_daily_platform", {"cost_nano", "tokens"});
  all_are_max("agents",
              {"total_cost_nano", "total_input_tokens", "total_output_tokens", "total_duration_ms"});
  all_are_max("runs", {"cost_nano", "input_tokens", "output_tokens", "llm_duration_ms"});
  CHECK(sql.integer("SELECT events FROM usage_hourly") == 6);
}

TEST_CASE_FIXTURE(StoreFixture, "an event that arrives 48 hours late has no minute row, but an hour") {
  const std::int64_t late_us = 48 * kMicrosPerHour;
  apply(make_batch(1, clock.now,
                   {make_event("a", "", clock.now - late_us + 1), make_event("a", "", clock.now - late_us)}),
        1);
  CHECK(sql.integer("SELECT SUM(events) FROM usage_minute") == 1);
  CHECK(sql.integer("SELECT SUM(events) FROM usage_hourly") == 2);
}

TEST_CASE_FIXTURE(StoreFixture, "an event before 1970 lies in the bucket that holds it") {
  apply(make_batch(1, clock.now, {make_event("a", "", -1)}), 1);
  CHECK(sql.integer("SELECT hour_s FROM usage_hourly") == -3600);
  CHECK(sql.integer("SELECT day_s FROM usage_daily_platform") == -86400);
}

TEST_CASE_FIXTURE(StoreFixture,
                  "an agent shows the provider and model of its latest event, in whatever order they come") {
  Event late = make_event("a", "", clock.now);
  late.provider = "anthropic";
  late.model = "claude";
  apply(make_batch(1, clock.now, {late, make_event("a", "", clock.now - 1)}), 1);
  apply(make_batch(2, clock.now, {make_event("a", "", clock.now - 2)}), 2);
  CHECK(sql.lines("SELECT provider, model, first_seen_us, last_event_us FROM agents", 4) ==
        std::vector<std::string>{"anthropic|claude|1799999999999998|1800000000000000"});
}

TEST_CASE_FIXTURE(StoreFixture, "an agent that was killed before its first event keeps its mark") {
  sql.execute(("INSERT INTO agents (org_id, name, first_seen_us, killed_at_us) VALUES ('" + kOrg.text() +
               "', 'a', 1799999999999999, 5)")
                  .c_str());
  apply(make_batch(1, clock.now, {make_event("a", "", clock.now)}), 1);
  CHECK(sql.lines("SELECT provider, first_seen_us, last_event_us, killed_at_us, total_events FROM agents",
                  5) == std::vector<std::string>{"openai|1799999999999999|1800000000000000|5|1"});
}

TEST_CASE_FIXTURE(StoreFixture, "a run knows its first agent, its last outcome and its models") {
  const auto call = [&](std::string_view agent, std::string_view model, std::int64_t offset_us,
                        bool is_error) {
    Event event = make_event(agent, "", clock.now + offset_us);
    event.run_id = "run";
    event.model = model;
    event.is_error = is_error;
    return event;
  };
  apply(make_batch(1, clock.now, {call("worker", "b\"m", 10, false), call("worker", ",", 20, true)}), 1);
  apply(make_batch(2, clock.now, {call("planner", "a", 5, false), call("worker", "b\"m", 15, false)}), 2);
  CHECK(sql.lines("SELECT agent_name, last_is_error, total_events, error_count, models, last_event_us - "
                  "first_event_us "
                  "FROM runs",
                  6) == std::vector<std::string>{R"(planner|1|4|1|[",","a","b\"m"]|15)"});
  CHECK(sql.integer("SELECT json_valid(models) FROM runs") == 1);
  const auto counted = [&] { return sql.lines("SELECT name, total_runs FROM agents ORDER BY 1", 2); };
  CHECK(counted() == std::vector<std::string>{"planner|1", "worker|0"});
  sql.execute("DELETE FROM runs");
  CHECK(counted() == std::vector<std::string>{"planner|0", "worker|0"});
}

TEST_CASE_FIXTURE(StoreFixture, "a run lists a hundred models at most, and stays readable") {
  std::vector<std::string> models;
  for (int i = 0; i < 250; ++i) models.push_back("m" + std::to_string(i));
  for (std::uint32_t part = 0; part < 5; ++part) {
    std::vector<Event> events;
    for (std::size_t i = 0; i < 50; ++i) {
      events.push_back(make_event("a", "", clock.now));
      events.back().run_id = "run";
      events.back().model = models[part * 50 + i];
    }
    apply(make_batch(part, clock.now, std::move(events)), part + 1);
  }
  CHECK(sql.integer("SELECT json_array_length(models) FROM runs") == 100);
}

// The aggregates once more, by SQL over the events: too simple to be wrong, and too slow to be the product.
TEST_CASE_FIXTURE(StoreFixture,
                  "aggregates equal the sums over the stored events, for random batches with repetitions") {
  const std::uint64_t seed = 20'261'124;
  CAPTURE(seed);
  Random random(seed);
  const auto below = [&](std::uint64_t n) { return random.next() % n; };
  const std::vector<std::string> agents{"alpha", "b'eta", "\xce\xb3", "alph"}, models{"m1", "m2", "a"},
      providers{"openai", "x"}, runs{"", "r1", "r2", "r3"};
  std::vector<std::string> keys(300);
  for (std::size_t i = 0; i < keys.size(); ++i) keys[i] = i % 4 == 0 ? "" : "k" + std::to_string(i);

  std::uint64_t sent = 0, stored = 0, duplicates = 0;
  for (std::uint32_t seq = 1; seq <= 30; ++seq) {
    std::vector<Batch> batches;
    for (std::uint64_t b = 0; b <= below(4); ++b) {
      std::vector<Event> events;
      for (std::uint64_t e = 0; e <= below(20); ++e) {
        Event event = make_event(agents[below(agents.size())], keys[below(keys.size())],
                                 clock.now - static_cast<std::int64_t>(below(60 * 3600)) * kMicrosPerSecond);
        event.model = models[below(models.size())];
        event.provider = providers[below(providers.size())];
        event.run_id = runs[below(runs.size())];
        event.is_error = below(5) == 0;
        event.cost = static_cast<std::int64_t>(below(1'000'000'000));
        event.input_tokens = static_cast<std::int64_t>(below(5'000));
        event.output_tokens = static_cast<std::int64_t>(below(5'000));
        event.duration_ms = below(3) == 0 ? 0 : static_cast<std::int64_t>(below(3'000));
        events.push_back(event);
      }
      sent += events.size();
      Batch batch = make_batch(seq * 100 + static_cast<std::uint32_t>(b), clock.now, std::move(events));
      batch.org_id = numbered_id(2, static_cast<std::uint32_t>(b % 2));
      batch.project_id = numbered_id(3, static_cast<std::uint32_t>(b % 2));
      batches.push_back(std::move(batch));
    }
    const ApplyOutcome outcome = Sql::must(store->apply(batches, kJournal, seq));
    stored += outcome.stored;
    duplicates += outcome.duplicates;
  }
  CHECK(stored + duplicates == sent);
  CHECK(duplicates > 0);
  CHECK(static_cast<std::uint64_t>(sql.integer("SELECT COUNT(*) FROM events")) == stored);

  CHECK(sql.lines("SELECT * FROM usage_hourly ORDER BY 1, 2, 3, 4, 5", 18) ==
        sql.lines("SELECT project_id, ts_us / 3600000000 * 3600 AS h, agent_name, provider, model, "
                  "MIN(org_id), COUNT(*), "
                  "SUM(is_error), SUM(cost_nano), SUM(CASE WHEN is_error = 1 THEN cost_nano ELSE 0 END), "
                  "SUM(input_tokens), "
                  "SUM(output_tokens), 0, 0, SUM(duration_ms), SUM(CASE WHEN duration_ms > 0 THEN 1 ELSE 0 "
                  "END), MAX(output_tokens), MAX(ts_us) "
                  "FROM events GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5",
                  18));
  CHECK(sql.lines("SELECT * FROM usage_minute ORDER BY 1, 2, 3, 4, 5", 13) ==
        sql.lines("SELECT project_id, ts_us / 60000000 * 60 AS m, agent_name, provider, model, MIN(org_id), "
                  "COUNT(*), "
                  "SUM(is_error), SUM(cost_nano), SUM(input_tokens), SUM(output_tokens), SUM(duration_ms), "
                  "SUM(CASE WHEN duration_ms > 0 THEN 1 ELSE 0 END) FROM events WHERE received_at_us - ts_us "
                  "< 172800000000 "
                  "GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5",
                  13));
  CHECK(sql.lines("SELECT * FROM usage_hourly_dim ORDER BY 1, 2, 3, 4", 10) ==
        sql.lines("SELECT org_id, ts_us / 3600000000 * 3600 AS h, agent_name, provider, '', 0, COUNT(*), "
                  "SUM(cost_nano), "
                  "SUM(input_tokens), SUM(output_tokens) FROM events GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
                  10));
  CHECK(sql.lines("SELECT * FROM usage_daily_platform ORDER BY 1, 2, 3, 4", 9) ==
        sql.lines(
            "SELECT ts_us / 86400000000 * 86400 AS d, project_id, provider, model, MIN(org_id), COUNT(*), "
            "SUM(is_error), SUM(cost_nano), SUM(input_tokens + output_tokens) FROM events "
            "GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
            9));
  CHECK(sql.lines(
            "SELECT org_id, name, first_seen_us, last_event_us, total_events, total_errors, total_cost_nano, "
            "total_input_tokens, total_output_tokens, total_duration_ms FROM agents ORDER BY 1, 2",
            10) ==
        sql.lines(
            "SELECT org_id, agent_name, MIN(ts_us), MAX(ts_us), COUNT(*), SUM(is_error), SUM(cost_nano), "
            "SUM(input_tokens), SUM(output_tokens), SUM(duration_ms) FROM events GROUP BY 1, 2 ORDER BY 1, 2",
            10));
  CHECK(
      sql.lines(
          "SELECT org_id, run_id, first_event_us, last_event_us, total_events, error_count, cost_nano, "
          "input_tokens, output_tokens, llm_duration_ms, json_array_length(models) FROM runs ORDER BY 1, 2",
          11) ==
      sql.lines("SELECT org_id, run_id, MIN(ts_us), MAX(ts_us), COUNT(*), SUM(is_error), SUM(cost_nano), "
                "SUM(input_tokens), SUM(output_tokens), SUM(duration_ms), COUNT(DISTINCT model) FROM events "
                "WHERE run_id IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2",
                11));
}

TEST_CASE_FIXTURE(StoreFixture, "whatever comes in, an agent has as many runs as there are rows of it") {
  const std::uint64_t seed = 20'261'126;
  CAPTURE(seed);
  Random random(seed);
  const std::vector<std::string> agents{"a", "b", "c"};
  std::vector<std::string> ids;
  for (int i = 0; i < 40; ++i) ids.push_back("run-" + std::to_string(i));
  for (std::uint32_t seq = 1; seq <= 30; ++seq) {
    std::vector<Event> events;
    for (int i = 0; i < 8; ++i) {
      const std::string& agent = agents[random.next() % agents.size()];
      events.push_back(make_event(agent, "", clock.now - static_cast<std::int64_t>(random.next() % 1000)));
      events.back().run_id = ids[random.next() % ids.size()];
    }
    Batch batch = make_batch(seq, clock.now, std::move(events));
    batch.org_id = numbered_id(2, seq % 2);
    apply(batch, seq);
    apply(batch, seq);  // a frame that is read again
  }
  CHECK(sql.lines("SELECT org_id, name, total_runs FROM agents WHERE total_runs <> 0 ORDER BY 1, 2", 3) ==
        sql.lines("SELECT org_id, agent_name, COUNT(*) FROM runs GROUP BY 1, 2 ORDER BY 1, 2", 3));
}

TEST_CASE_FIXTURE(StoreFixture,
                  "positions of different journals do not touch each other, and one can be set back") {
  const Batch none = make_batch(1, clock.now, {});
  apply(none, 50);
  CHECK(Sql::must(store->position(numbered_id(1, 2))) == 0);
  CHECK(Sql::must(store->position(kJournal)) == 50);
  apply(none, 7);
  CHECK(Sql::must(store->position(kJournal)) == 7);
}

TEST_CASE_FIXTURE(StoreFixture,
                  "deduplication keys are read back since a time and forgotten in slices, the oldest first") {
  for (std::uint32_t i = 0; i < 10; ++i) {
    const std::string key = "key-" + std::to_string(i);
    apply(make_batch(i, clock.now + i, {make_event("a", key, clock.now)}), i + 1);
  }
  const auto remembered = [&](std::int64_t since_us) {
    std::vector<std::string> keys;
    const auto scanned =
        store->scan_dedup(since_us, [&](const Uuid& project_id, std::string_view key, std::int64_t seen) {
          CHECK(project_id == kProject);
          CHECK(seen >= since_us);
          keys.emplace_back(key);
        });
    CHECK(scanned.has_value());
    return keys;
  };
  CHECK(remembered(clock.now + 8) == std::vector<std::string>{"key-8", "key-9"});
  CHECK(Sql::must(store->prune(clock.now + 5, 3)) == 3);
  CHECK(remembered(0).front() == "key-3");
  CHECK(Sql::must(store->prune(clock.now + 5, 3)) == 2);
  CHECK(Sql::must(store->prune(clock.now + 5, 3)) == 0);
  CHECK(remembered(0).size() == 5);
}

TEST_CASE_FIXTURE(StoreFixture, "minutes are forgotten after 49 hours, in slices, and hours are not") {
  const WallMicros start = clock.now;
  for (std::uint32_t i = 0; i < 5; ++i) {
    const WallMicros at = start + i * 60 * kMicrosPerSecond;
    apply(make_batch(i, at, {make_event("a", "", at)}), i + 1);
  }
  const auto kept = [&] { return sql.integer("SELECT COUNT(*) FROM usage_minute"); };
  clock.now = start + 49 * kMicrosPerHour;
  CHECK(Sql::must(store->prune(0, 10)) == 0);
  clock.now += 180 * kMicrosPerSecond;
  CHECK(Sql::must(store->prune(0, 2)) == 2);
  CHECK(kept() == 3);
  CHECK(sql.integer("SELECT MIN(minute_s) FROM usage_minute") == start / kMicrosPerSecond + 2 * 60);
  CHECK(Sql::must(store->prune(0, 2)) == 1);
  CHECK(Sql::must(store->prune(0, 2)) == 0);
  CHECK(kept() == 2);
  CHECK(sql.integer("SELECT SUM(events) FROM usage_hourly") == 5);
}

}  // namespace kavach::sink::test
