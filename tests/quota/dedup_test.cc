// Dedup: random histories against a std::map that is too simple to be wrong, then the bounds.
#include "quota/dedup.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace kavach::quota {
namespace {

constexpr WallMicros kStart = 1'780'000'000LL * kMicrosPerSecond;
// Soon the numbers of claims come round.
constexpr DedupTable::Number kLastNumbers = (DedupTable::Number{1} << 40) - 200;

DedupKey key_number(std::uint64_t n) {
  static const DedupHasher hasher(42);
  return hasher(Uuid{}, "key-" + std::to_string(n));
}

// A batch of the one key that is durable at once; what the table said to it.
DedupTable::Found add(DedupTable& table, const DedupKey& key, WallMicros at) {
  const DedupTable::Number claim = table.begin(0, at);
  const DedupTable::Found found = table.claim(key, claim).found;
  table.end(claim);
  return found;
}
DedupTable::Found add(DedupTable& table, std::uint64_t n, WallMicros at) {
  return add(table, key_number(n), at);
}

// Same calls on the table and on a map; every answer must agree. The time also steps back, as it does between
// shards and when a clock is set.
class Model {
 public:
  Model(std::uint64_t seed, const DedupTable::Options& options)
      : window_hours_(options.window_hours), table_(options), random_(seed) {}

  void step() {
    clock_ += static_cast<WallMicros>(random_.next() % (20 * 60 * kMicrosPerSecond));
    now_ = clock_ - static_cast<WallMicros>(random_.next() % (90 * 60 * kMicrosPerSecond));
    const std::uint64_t n = random_.next() % 400;
    const std::uint64_t holder = random_.next() % claims_.size();
    DedupTable::Number& claim = claims_[holder];
    if (claim == 0) {
      look_at_clock();
      claim = table_.begin(static_cast<std::uint32_t>(holder), now_);
      hours_[holder] = latest_hour_;
    }
    switch (random_.next() % 8) {
      case 0:
        table_.end(claim);
        for (auto& [key, seen] : keys_)
          if (seen.holder == holder) seen.holder = kNobody;
        claim = 0;
        break;
      case 1:
      case 2:
        table_.release(key_number(n), claim);
        if (holds(n, holder)) keys_.erase(n);
        break;
      case 3:
        restore(n);
        break;
      default:
        check_claim(n, holder);
        break;
    }
    if (random_.next() % 8 == 0) {
      look_at_clock();
      table_.sweep(now_);
    }
  }

 private:
  static constexpr std::uint64_t kNobody = 99;
  struct Seen {
    std::uint64_t holder;  // kNobody: remembered
    std::int64_t hour;
  };

  void look_at_clock() {
    latest_hour_ = std::max(latest_hour_, now_ / kMicrosPerHour);
    told_hour_ = now_ / kMicrosPerHour;
  }
  bool holds(std::uint64_t n, std::uint64_t holder) const {
    const auto found = keys_.find(n);
    return found != keys_.end() && found->second.holder == holder;
  }

  void restore(std::uint64_t n) {
    const auto found = keys_.find(n);
    if (found != keys_.end() && found->second.holder != kNobody) return;  // no claims at start
    look_at_clock();
    const WallMicros seen =
        now_ - static_cast<WallMicros>(random_.next() % (30 * kMicrosPerHour)) + kMicrosPerHour;
    table_.restore(key_number(n), seen, now_);
    const std::int64_t hour = std::min(seen, now_) / kMicrosPerHour;
    if (told_hour_ - hour > window_hours_) return;
    if (found == keys_.end() || found->second.hour < hour) keys_[n] = {kNobody, hour};
  }

  void check_claim(std::uint64_t n, std::uint64_t holder) {
    const auto found = keys_.find(n);
    const DedupTable::Answer answer = table_.claim(key_number(n), claims_[holder]);
    if (found != keys_.end() && found->second.holder != kNobody) {
      const bool own = found->second.holder == holder;
      CHECK(answer.found == (own ? DedupTable::Found::kOwn : DedupTable::Found::kPending));
      if (!own) CHECK(answer.holder == found->second.holder);
      return;
    }
    // Ages are whole hours, so the edge of the window is one hour wide.
    const bool remembered = found != keys_.end() && told_hour_ - found->second.hour <= window_hours_;
    CHECK(answer.found == (remembered ? DedupTable::Found::kRemembered : DedupTable::Found::kClaimed));
    if (!remembered) keys_[n] = {holder, hours_[holder]};
  }

  std::int64_t window_hours_;
  DedupTable table_;
  Random random_;
  WallMicros clock_ = kStart;
  WallMicros now_ = 0;
  std::int64_t latest_hour_ = 0;
  std::int64_t told_hour_ = 0;  // to the table, the last time
  std::array<DedupTable::Number, 5> claims_{};
  std::array<std::int64_t, 5> hours_{};
  std::map<std::uint64_t, Seen> keys_;
};

TEST_CASE("random histories agree with a map, also where the numbers of claims come round") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    Model model(seed, {.window_hours = 24,
                       .keys_max = 1'000'000,
                       .first_number = seed % 2 == 0 ? DedupTable::Number{1} : kLastNumbers});
    for (int i = 0; i < 4'000; ++i) model.step();
  }
}

TEST_CASE("a key is a duplicate within its window and new behind it") {
  DedupTable table({.window_hours = 168, .keys_max = 1000});
  CHECK(add(table, 1, kStart) == DedupTable::Found::kClaimed);
  CHECK(add(table, 1, kStart + 168 * kMicrosPerHour) == DedupTable::Found::kRemembered);
  CHECK(add(table, 1, kStart + 170 * kMicrosPerHour) == DedupTable::Found::kClaimed);
}

TEST_CASE("a key is a duplicate also for a batch that came a moment before it was remembered") {
  // Another shard's batch, on both sides of a full hour.
  const WallMicros hour = (kStart / kMicrosPerHour + 1) * kMicrosPerHour;
  DedupTable table({.window_hours = 168, .keys_max = 1000});
  add(table, 1, hour + 1);
  CHECK(add(table, 1, hour - 1) == DedupTable::Found::kRemembered);
}

TEST_CASE("a clock that is set back by days forgets nothing") {
  DedupTable table({.window_hours = 168, .keys_max = 1000});
  add(table, 1, kStart);
  const WallMicros set_back = kStart - 300 * kMicrosPerHour;
  for (int i = 0; i < 256; ++i) table.sweep(set_back);
  CHECK(add(table, 1, set_back) == DedupTable::Found::kRemembered);
  CHECK(add(table, 1, kStart + 170 * kMicrosPerHour) == DedupTable::Found::kClaimed);
}

TEST_CASE("a key that nobody sent for longer than the window is new, whatever the clock skipped") {
  DedupTable table({.window_hours = 1, .keys_max = 1000});
  add(table, 1, kStart);
  CHECK(add(table, 1, kStart + 10'000 * kMicrosPerHour) == DedupTable::Found::kClaimed);
  CHECK(add(table, 1, kStart + 10'001 * kMicrosPerHour) == DedupTable::Found::kRemembered);
}

TEST_CASE("a claim that failed leaves no trace") {
  DedupTable table({.window_hours = 168, .keys_max = 1000});
  const DedupTable::Number claim = table.begin(3, kStart);
  CHECK(table.claim(key_number(1), claim).found == DedupTable::Found::kClaimed);
  table.release(key_number(1), claim);
  table.end(claim);
  CHECK(table.size() == 0);
  CHECK(add(table, 1, kStart) == DedupTable::Found::kClaimed);
}

TEST_CASE("a claim holds its keys beyond their window, and while all others come and go") {
  DedupTable table({.window_hours = 1, .keys_max = 1000});
  const DedupTable::Number claim = table.begin(7, kStart);
  CHECK(table.claim(key_number(1), claim).found == DedupTable::Found::kClaimed);
  for (std::uint64_t n = 2; n < 2 * DedupTable::kClaimsMax; ++n)
    add(table, n % 500 + 2, kStart + 10 * kMicrosPerHour);
  for (int i = 0; i < 256; ++i) table.sweep(kStart + 10 * kMicrosPerHour);
  const DedupTable::Number other = table.begin(8, kStart + 10 * kMicrosPerHour);
  const DedupTable::Answer answer = table.claim(key_number(1), other);
  CHECK(answer.found == DedupTable::Found::kPending);
  CHECK(answer.holder == 7);
}

TEST_CASE("as many claims as may be are under way at the same time") {
  DedupTable table({.window_hours = 168, .keys_max = 1'000'000});
  std::vector<DedupTable::Number> claims;
  for (std::uint32_t n = 0; n < DedupTable::kClaimsMax; ++n) {
    claims.push_back(table.begin(n, kStart));
    REQUIRE(table.claim(key_number(n), claims.back()).found == DedupTable::Found::kClaimed);
  }
  table.end(claims[100]);
  claims[100] = table.begin(99'999, kStart);
  for (std::uint32_t n = 0; n < DedupTable::kClaimsMax; ++n) {
    if (n == 100) continue;
    const DedupTable::Answer answer = table.claim(key_number(n), claims[100]);
    REQUIRE(answer.found == DedupTable::Found::kPending);
    REQUIRE(answer.holder == n);
  }
}

TEST_CASE("the same key of two projects is two keys, and an empty key is none") {
  const DedupHasher hasher(7);
  Uuid first;
  Uuid second;
  second.bytes[15] = 1;
  CHECK_FALSE(hasher(first, "k") == hasher(second, "k"));
  CHECK(hasher(first, "").is_none());
}

TEST_CASE("remembered keys take at most 44 bytes each, also while the table grows") {
  DedupTable table({.window_hours = 168, .keys_max = 10'000'000});
  for (std::uint64_t n = 1; n <= 2'000'000; ++n) {
    add(table, n, kStart);
    if (n > 100'000 && n % 100 == 0) REQUIRE(table.bytes() <= n * 44);
  }
  CHECK(table.size() == 2'000'000);
}

TEST_CASE("a table with room for what is expected stays as it is until there is more") {
  DedupTable table({.window_hours = 1, .keys_max = 1'000'000, .keys_expected = 300'000});
  const std::uint64_t bytes = table.bytes();
  CHECK(bytes >= std::uint64_t{300'000} * 20);
  CHECK(bytes <= std::uint64_t{300'000} * 24);
  std::uint64_t n = 0;
  // A part may get some more than another.
  while (n < 250'000) add(table, n++, kStart);
  CHECK(table.bytes() == bytes);
  // What is forgotten leaves its room.
  const WallMicros later = kStart + 3 * kMicrosPerHour;
  for (int i = 0; i < 256; ++i) table.sweep(later);
  CHECK(table.size() == 0);
  CHECK(table.bytes() >= bytes);
  CHECK(table.bytes() <= bytes * 11 / 10);
  const std::uint64_t swept = table.bytes();
  for (std::uint64_t i = 0; i < 250'000; ++i) REQUIRE(add(table, n++, later) == DedupTable::Found::kClaimed);
  CHECK(table.bytes() == swept);
  while (n < 1'130'000) add(table, n++, later);
  CHECK(table.size() == 880'000);
  CHECK(table.evicted() == 0);
}

TEST_CASE("at its bound the table forgets the oldest keys and stays as large as it is") {
  // Also where the numbers come round, and the youngest key has the smallest one.
  for (const DedupTable::Number first : {DedupTable::Number{1}, kLastNumbers}) {
    CAPTURE(first);
    const WallMicros later = kStart + 2 * kMicrosPerHour;
    DedupTable table({.window_hours = 168, .keys_max = 20'000, .first_number = first});
    for (std::uint64_t n = 0; n < 20'000; ++n) add(table, n, kStart);
    const std::uint64_t bytes = table.bytes();
    for (std::uint64_t n = 20'000; n < 30'000; ++n) add(table, n, later);
    CHECK(table.bytes() <= bytes + bytes / 4);
    CHECK(table.size() <= 20'000 + 256);
    CHECK(table.evicted() > 9'000);
    std::uint64_t young_kept = 0;
    for (std::uint64_t n = 20'000; n < 30'000; ++n)
      young_kept += add(table, n, later) == DedupTable::Found::kRemembered ? 1U : 0U;
    CHECK(young_kept == 10'000);  // old ones go first
  }
}

TEST_CASE("at its bound the table holds nearly as many keys as it may, the youngest, however many come") {
  DedupTable table({.window_hours = 168, .keys_max = 100'000});
  for (std::uint64_t n = 0; n < 400'000; ++n)
    add(table, n, kStart + static_cast<WallMicros>(n) * kMicrosPerSecond);
  CHECK(table.size() > 87'000);
  CHECK(table.size() <= 100'000 + 256);
  CHECK(table.bytes() <= 100'000 * 40);
  CHECK(table.evicted() == 400'000 - table.size());
  // Each part keeps 13 of 16 keys at least, so that the last 75,000 are there.
  std::uint64_t forgotten = 0;
  const DedupTable::Number claim = table.begin(0, kStart + 400'000 * kMicrosPerSecond);
  for (std::uint64_t n = 325'000; n < 400'000; ++n)
    forgotten += table.claim(key_number(n), claim).found == DedupTable::Found::kRemembered ? 0U : 1U;
  CHECK(forgotten < 100);
}

TEST_CASE("at its bound the table forgets a part of what is of one age, not all of it") {
  DedupTable table({.window_hours = 168, .keys_max = 100'000});
  for (std::uint64_t n = 0; n < 110'000; ++n) table.restore(key_number(n), kStart - kMicrosPerHour, kStart);
  CHECK(table.size() > 80'000);
  CHECK(table.evicted() == 110'000 - table.size());
}

TEST_CASE("what is left when keys are forgotten is found, in every chain") {
  // Parts of a few lines, nearly full, with claims among the keys.
  DedupTable table({.window_hours = 168, .keys_max = 256 * 24});
  std::vector<std::pair<std::uint64_t, DedupTable::Number>> held;
  for (std::uint64_t n = 0; n < 60'000; ++n) {
    if (n % 16 == 0 && held.size() < 1000) {
      held.emplace_back(n, table.begin(0, kStart));
      REQUIRE(table.claim(key_number(n), held.back().second).found == DedupTable::Found::kClaimed);
    } else {
      REQUIRE(add(table, n, kStart) == DedupTable::Found::kClaimed);
    }
    // The latest of any part.
    REQUIRE(add(table, n, kStart) == (n % 16 == 0 && !held.empty() && held.back().first == n
                                          ? DedupTable::Found::kPending
                                          : DedupTable::Found::kRemembered));
  }
  for (const auto& [n, claim] : held)
    REQUIRE(table.claim(key_number(n), claim).found == DedupTable::Found::kOwn);
}

TEST_CASE("a key that makes room after its window counts as expired, not as forgotten too early") {
  DedupTable table({.window_hours = 1, .keys_max = 20'000});
  for (std::uint64_t n = 0; n < 20'000; ++n) add(table, n, kStart);
  const std::uint64_t evicted = table.evicted();  // from the fullest parts
  for (std::uint64_t n = 20'000; n < 25'000; ++n) add(table, n, kStart + 5 * kMicrosPerHour);
  CHECK(table.evicted() == evicted);
}

TEST_CASE("claims beyond the bound are all held, since forgetting one would admit a duplicate") {
  DedupTable table({.window_hours = 168, .keys_max = 1});
  std::array<DedupTable::Number, 7> claims{};
  for (DedupTable::Number& claim : claims) claim = table.begin(0, kStart);
  for (const DedupTable::Found expected : {DedupTable::Found::kClaimed, DedupTable::Found::kOwn}) {
    for (std::uint64_t n = 0; n < 50'000; ++n)
      REQUIRE(table.claim(key_number(n), claims[n % claims.size()]).found == expected);
  }
}

TEST_CASE("expired keys give their memory back") {
  DedupTable table({.window_hours = 1, .keys_max = 1'000'000});
  const std::uint64_t empty = table.bytes();
  for (std::uint64_t n = 0; n < 100'000; ++n) add(table, n, kStart);
  for (int i = 0; i < 256; ++i) table.sweep(kStart + 5 * kMicrosPerHour);
  CHECK(table.size() == 0);
  CHECK(table.bytes() <= empty);
}

TEST_CASE("a restored key keeps its age, and one from the future is as old as now") {
  DedupTable table({.window_hours = 168, .keys_max = 1000});
  table.restore(key_number(1), kStart - 100 * kMicrosPerHour, kStart);
  table.restore(key_number(2), kStart - 200 * kMicrosPerHour, kStart);
  table.restore(key_number(3), kStart + 1000 * kMicrosPerHour, kStart);
  CHECK(add(table, 1, kStart) == DedupTable::Found::kRemembered);
  CHECK(add(table, 2, kStart) == DedupTable::Found::kClaimed);
  CHECK(add(table, 3, kStart) == DedupTable::Found::kRemembered);
  CHECK(add(table, 1, kStart + 100 * kMicrosPerHour) == DedupTable::Found::kClaimed);
  CHECK(add(table, 3, kStart + 200 * kMicrosPerHour) == DedupTable::Found::kClaimed);
}

}  // namespace
}  // namespace kavach::quota
