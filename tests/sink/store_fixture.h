// What the store's tests share: a database file of their own, a clock that they set, batches, and plain SQL
// to look at the result behind the Store's back.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/clock.h"
#include "engine/event.h"
#include "sink/store/sqlite.h"
#include "sink/store/store.h"
#include "tests/support/temp_folder.h"

namespace kavach::sink::test {

using kavach::test::TempFolder;

class FixedClock final : public Clock {
 public:
  WallMicros wall() const noexcept override { return now; }
  MonoMicros mono() const noexcept override { return now; }
  WallMicros now = 1'800'000'000 * kMicrosPerSecond;
};

// Its own connection to the same file.
class Sql {
 public:
  explicit Sql(const std::string& path) : connection_(must(Connection::open(path))) {}

  std::int64_t integer(std::string_view query) {
    auto statement = must(connection_.prepare(query));
    return must(statement.scalar());
  }
  std::string text(std::string_view query) {
    auto statement = must(connection_.prepare(query));
    auto rows = statement.rows();
    REQUIRE(must(rows.next()));
    return std::string(rows.text(0));
  }
  // All rows, each as its columns' texts joined by '|'.
  std::vector<std::string> lines(std::string_view query, int columns) {
    auto statement = must(connection_.prepare(query));
    auto rows = statement.rows();
    std::vector<std::string> result;
    while (must(rows.next())) {
      std::string line;
      for (int i = 0; i < columns; ++i) line.append(i == 0 ? "" : "|").append(rows.text(i));
      result.push_back(std::move(line));
    }
    return result;
  }
  void execute(const char* sql) { REQUIRE(connection_.execute(sql).has_value()); }
  Connection& connection() { return connection_; }

  template <typename T>
  static T must(StoreResult<T> result) {
    if (!result) FAIL(result.error().message);
    return std::move(*result);
  }

 private:
  Connection connection_;
};

inline Uuid numbered_id(std::uint8_t kind, std::uint32_t number) {
  Uuid id;
  id.bytes = {1, 0x9b, 0, 0, 0, kind, 0x70, 0, 0x80, 0, 0, 0};
  for (std::size_t i = 0; i < 4; ++i) id.bytes[12 + i] = static_cast<std::uint8_t>(number >> (24 - 8 * i));
  return id;
}

inline const Uuid kJournal = numbered_id(1, 1);
inline const Uuid kOrg = numbered_id(2, 1);
inline const Uuid kProject = numbered_id(3, 1);

inline Event make_event(std::string_view agent, std::string_view key, WallMicros at) {
  Event event;
  event.agent_name = agent;
  event.provider = "openai";
  event.model = "gpt-4o";
  event.idempotency_key = key;
  event.timestamp = at;
  event.input_tokens = 100;
  event.output_tokens = 20;
  event.duration_ms = 250;
  event.cost = 1'500'000;
  return event;
}

inline Batch make_batch(std::uint32_t number, WallMicros received_at, std::vector<Event> events) {
  Batch batch;
  batch.id = numbered_id(4, number);
  batch.org_id = kOrg;
  batch.project_id = kProject;
  batch.received_at = received_at;
  batch.events = std::move(events);
  return batch;
}

inline KeyDigest digest_of(std::uint8_t seed) {
  KeyDigest digest{};
  digest.fill(seed);
  return digest;
}

struct StoreFixture {
  TempFolder folder;
  FixedClock clock;
  std::string path = folder.file("kavach.db");
  std::unique_ptr<Store> store = Sql::must(open_sqlite(path, clock));
  Sql sql{path};

  ApplyOutcome apply(const Batch& batch, std::uint64_t seq) {
    return Sql::must(store->apply(std::span<const Batch>(&batch, 1), kJournal, seq));
  }
};

}  // namespace kavach::sink::test
