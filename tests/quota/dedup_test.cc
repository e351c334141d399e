// Dedup: random histories against a std::map that is too simple to be wrong, then the bounds.
#include "quota/dedup.h"

#include <doctest/doctest.h>

#include <malloc.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace kavach::quota {
namespace {

constexpr WallMicros kStart = 1'780'000'000LL * kMicrosPerSecond;
// An hour stamp has 0xbfff values (dedup.cc); here the first one comes round again.
constexpr WallMicros kTurn = (kStart / kMicrosPerHour / 0xbfff + 1) * 0xbfff * kMicrosPerHour;

DedupKey key_number(std::uint64_t n) {
  static const DedupHasher hasher(42);
  return hasher(Uuid{}, "key-" + std::to_string(n));
}

struct Remembered {
  bool pending;
  std::uint32_t claim;
  WallMicros seen;
};

// Same calls on the table and on the map; every answer must agree. The time also steps back, as it does
// between shards and when a clock is set.
class Model {
 public:
  Model(std::uint64_t seed, std::int64_t window_hours, WallMicros start)
      : random_(seed), window_hours_(window_hours), clock_(start) {}

  void step(DedupTable& table) {
    clock_ += static_cast<WallMicros>(random_.next() % (20 * 60 * kMicrosPerSecond));
    now_ = clock_ - static_cast<WallMicros>(random_.next() % (90 * 60 * kMicrosPerSecond));
    const std::uint64_t n = random_.next() % 400;
    const auto claim = static_cast<std::uint32_t>(random_.next() % 5);
    const DedupKey key = key_number(n);
    switch (random_.next() % 8) {
      case 0:
      case 1:
        table.remember(key, claim, now_);
        if (holds(n, claim)) keys_[n] = {false, 0, now_};
        break;
      case 2:
      case 3:
        table.release(key, claim);
        if (holds(n, claim)) keys_.erase(n);
        break;
      case 4:
        restore(table, n);
        break;
      default:
        check_claim(table, n, claim);
        break;
    }
    if (random_.next() % 8 == 0) table.sweep(now_);
  }

 private:
  void restore(DedupTable& table, std::uint64_t n) {
    const auto found = keys_.find(n);
    if (found != keys_.end() && found->second.pending) return;  // no claims at start
    const WallMicros seen =
        now_ - static_cast<WallMicros>(random_.next() % (30 * kMicrosPerHour)) + kMicrosPerHour;
    table.restore(key_number(n), seen, now_);
    if (seen < now_ - window_hours_ * kMicrosPerHour) return;
    if (found == keys_.end() || found->second.seen < std::min(seen, now_))
      keys_[n] = {false, 0, std::min(seen, now_)};
  }

  bool holds(std::uint64_t n, std::uint32_t claim) const {
    const auto found = keys_.find(n);
    return found != keys_.end() && found->second.pending && found->second.claim == claim;
  }

  void check_claim(DedupTable& table, std::uint64_t n, std::uint32_t claim) {
    const auto found = keys_.find(n);
    const DedupTable::Answer answer = table.claim(key_number(n), claim, now_);
    if (found != keys_.end() && found->second.pending) {
      const bool own = found->second.claim == claim;
      CHECK(answer.found == (own ? DedupTable::Found::kOwn : DedupTable::Found::kPending));
      if (!own) CHECK(answer.holder == found->second.claim);
      return;
    }
    // Ages are whole hours, so the edge of the window is one hour wide.
    const bool remembered =
        found != keys_.end() && now_ / kMicrosPerHour - found->second.seen / kMicrosPerHour <= window_hours_;
    CHECK(answer.found == (remembered ? DedupTable::Found::kRemembered : DedupTable::Found::kClaimed));
    if (!remembered) keys_[n] = {true, claim, now_};
  }

  Random random_;
  std::int64_t window_hours_;
  WallMicros clock_;
  WallMicros now_ = 0;
  std::map<std::uint64_t, Remembered> keys_;
};

TEST_CASE("random histories agree with a map") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    DedupTable table({.window_hours = 24, .keys_max = 1'000'000});
    Model model(seed, 24, seed % 2 == 0 ? kStart : kTurn - 300 * kMicrosPerHour);
    for (int i = 0; i < 4'000; ++i) model.step(table);
  }
}

TEST_CASE("a key is a duplicate within its window and new behind it") {
  DedupTable table({.window_hours = 168, .keys_max = 1000});
  const DedupKey key = key_number(1);
  CHECK(table.claim(key, 0, kStart).found == DedupTable::Found::kClaimed);
  table.remember(key, 0, kStart);
  CHECK(table.claim(key, 1, kStart + 168 * kMicrosPerHour).found == DedupTable::Found::kRemembered);
  CHECK(table.claim(key, 1, kStart + 170 * kMicrosPerHour).found == DedupTable::Found::kClaimed);
}

TEST_CASE("a key is a duplicate also for a batch that came a moment before it was remembered") {
  // Another shard's batch, on both sides of a full hour, and of the hour in which the stamps come round.
  for (const WallMicros hour : {(kStart / kMicrosPerHour + 1) * kMicrosPerHour, kTurn}) {
    DedupTable table({.window_hours = 168, .keys_max = 1000});
    table.claim(key_number(1), 0, hour + 1);
    table.remember(key_number(1), 0, hour + 1);
    CHECK(table.claim(key_number(1), 1, hour - 1).found == DedupTable::Found::kRemembered);
  }
}

TEST_CASE("a clock that is set back by days forgets nothing") {
  DedupTable table({.window_hours = 168, .keys_max = 1000});
  table.claim(key_number(1), 0, kStart);
  table.remember(key_number(1), 0, kStart);
  const WallMicros set_back = kStart - 300 * kMicrosPerHour;
  for (int i = 0; i < 256; ++i) table.sweep(set_back);
  CHECK(table.claim(key_number(1), 1, set_back).found == DedupTable::Found::kRemembered);
  CHECK(table.claim(key_number(1), 1, kStart + 170 * kMicrosPerHour).found == DedupTable::Found::kClaimed);
}

TEST_CASE("a claim that failed leaves no trace") {
  DedupTable table({.window_hours = 168, .keys_max = 1000});
  CHECK(table.claim(key_number(1), 3, kStart).found == DedupTable::Found::kClaimed);
  table.release(key_number(1), 3);
  CHECK(table.size() == 0);
  CHECK(table.claim(key_number(1), 4, kStart).found == DedupTable::Found::kClaimed);
}

TEST_CASE("the same key of two projects is two keys, and an empty key is none") {
  const DedupHasher hasher(7);
  Uuid first;
  Uuid second;
  second.bytes[15] = 1;
  CHECK_FALSE(hasher(first, "k") == hasher(second, "k"));
  CHECK(hasher(first, "").is_none());
}

TEST_CASE("a million remembered keys take at most 40 MiB, whatever the number on the way") {
  DedupTable table({.window_hours = 168, .keys_max = 10'000'000});
  for (std::uint64_t n = 0; n < 1'000'000; ++n) {
    table.claim(key_number(n), 0, kStart);
    table.remember(key_number(n), 0, kStart);
    if (n > 100'000 && n % 10'000 == 0) REQUIRE(table.bytes() <= n * 40);
  }
  CHECK(table.size() == 1'000'000);
  CHECK(table.bytes() <= std::uint64_t{40} << 20);
}

// What the allocator has handed out, its own bytes included; 0 where a sanitizer has replaced it.
std::uint64_t heap_bytes() {
  const struct mallinfo2 heap = ::mallinfo2();
  return heap.uordblks + heap.hblkhd;
}

TEST_CASE("also the heap holds at most 40 MiB for a million keys, and no more while the table grows") {
  const std::uint64_t before = heap_bytes();
  std::uint64_t most = before;
  DedupTable table({.window_hours = 168, .keys_max = 10'000'000});
  for (std::uint64_t n = 0; n < 1'000'000; ++n) {
    table.claim(key_number(n), 0, kStart);
    table.remember(key_number(n), 0, kStart);
    if (n % 100 == 0) most = std::max(most, heap_bytes());
  }
  CHECK(most - before <= std::uint64_t{40} << 20);
}

// Remembers the key; what the table said to it.
DedupTable::Found add(DedupTable& table, std::uint64_t n, WallMicros at) {
  const DedupTable::Found found = table.claim(key_number(n), 0, at).found;
  table.remember(key_number(n), 0, at);
  return found;
}

TEST_CASE("at its bound the table forgets the oldest keys and stays as large as it is") {
  // Also where the stamps come round, and the youngest key has the smallest one.
  for (const WallMicros start : {kStart, kTurn - kMicrosPerHour}) {
    CAPTURE(start);
    const WallMicros later = start + 2 * kMicrosPerHour;
    DedupTable table({.window_hours = 168, .keys_max = 20'000});
    for (std::uint64_t n = 0; n < 20'000; ++n) add(table, n, start);
    const std::uint64_t bytes = table.bytes();
    for (std::uint64_t n = 20'000; n < 30'000; ++n) add(table, n, later);
    CHECK(table.bytes() <= bytes + bytes / 4);
    CHECK(table.size() <= 20'000 + 256);
    CHECK(table.evicted() > 9'000);
    std::uint64_t young_kept = 0;
    for (std::uint64_t n = 20'000; n < 30'000; ++n)
      young_kept += add(table, n, later) == DedupTable::Found::kRemembered ? 1U : 0U;
    CHECK(young_kept > 9'800);  // old ones go first, as far as a glance at 32 slots tells
  }
}

TEST_CASE("at its bound the table holds as many keys as it may, however many come") {
  DedupTable table({.window_hours = 168, .keys_max = 100'000});
  for (std::uint64_t n = 0; n < 400'000; ++n)
    add(table, n, kStart + static_cast<WallMicros>(n) * kMicrosPerSecond);
  CHECK(table.size() > 99'000);
  CHECK(table.size() <= 100'000 + 256);
  CHECK(table.bytes() <= 100'000 * 40);
  CHECK(table.evicted() == 400'000 - table.size());
}

TEST_CASE("a key that makes room after its window counts as expired, not as forgotten too early") {
  DedupTable table({.window_hours = 1, .keys_max = 20'000});
  for (std::uint64_t n = 0; n < 20'000; ++n) add(table, n, kStart);
  const std::uint64_t evicted = table.evicted();  // from the fullest parts
  for (std::uint64_t n = 20'000; n < 25'000; ++n) add(table, n, kStart + 5 * kMicrosPerHour);
  CHECK(table.evicted() - evicted < 50);  // of 5,000: where a glance at 32 slots saw no old key
}

TEST_CASE("claims beyond the bound are all held, since forgetting one would admit a duplicate") {
  DedupTable table({.window_hours = 168, .keys_max = 1});
  for (std::uint64_t n = 0; n < 50'000; ++n) {
    REQUIRE(table.claim(key_number(n), static_cast<std::uint32_t>(n % 7), kStart).found ==
            DedupTable::Found::kClaimed);
  }
  for (std::uint64_t n = 0; n < 50'000; ++n) {
    REQUIRE(table.claim(key_number(n), static_cast<std::uint32_t>(n % 7), kStart).found ==
            DedupTable::Found::kOwn);
  }
}

TEST_CASE("expired keys give their memory back") {
  DedupTable table({.window_hours = 1, .keys_max = 1'000'000});
  for (std::uint64_t n = 0; n < 100'000; ++n) {
    table.claim(key_number(n), 0, kStart);
    table.remember(key_number(n), 0, kStart);
  }
  for (int i = 0; i < 256; ++i) table.sweep(kStart + 5 * kMicrosPerHour);
  CHECK(table.size() == 0);
  CHECK(table.bytes() < 200'000);
}

TEST_CASE("a restored key keeps its age, and one from the future is as old as now") {
  DedupTable table({.window_hours = 168, .keys_max = 1000});
  table.restore(key_number(1), kStart - 100 * kMicrosPerHour, kStart);
  table.restore(key_number(2), kStart - 200 * kMicrosPerHour, kStart);
  table.restore(key_number(3), kStart + 1000 * kMicrosPerHour, kStart);
  CHECK(table.claim(key_number(1), 0, kStart).found == DedupTable::Found::kRemembered);
  CHECK(table.claim(key_number(2), 0, kStart).found == DedupTable::Found::kClaimed);
  CHECK(table.claim(key_number(3), 0, kStart).found == DedupTable::Found::kRemembered);
  CHECK(table.claim(key_number(1), 0, kStart + 100 * kMicrosPerHour).found == DedupTable::Found::kClaimed);
  CHECK(table.claim(key_number(3), 0, kStart + 200 * kMicrosPerHour).found == DedupTable::Found::kClaimed);
}

}  // namespace
}  // namespace kavach::quota
