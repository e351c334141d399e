// SpscRing: first in, first out, nothing lost, nothing beyond its slots.
#include "engine/mailbox.h"

#include <doctest/doctest.h>

#include <thread>
#include <vector>

namespace kavach {
namespace {

template <typename Ring>
std::vector<int> drained(Ring& ring, std::size_t max) {
  std::vector<int> values;
  const std::size_t count = ring.drain([&](int value) { values.push_back(value); }, max);
  CHECK(count == values.size());
  return values;
}

TEST_CASE("values come out in the order in which they went in, at most as many as asked for") {
  SpscRing<int, 8> ring;
  CHECK(ring.empty());
  CHECK(drained(ring, 8).empty());
  for (int i = 0; i < 5; ++i) CHECK(ring.try_push(i));
  CHECK_FALSE(ring.empty());
  CHECK(drained(ring, 0).empty());
  CHECK(drained(ring, 2) == std::vector<int>{0, 1});
  CHECK(drained(ring, 9) == std::vector<int>{2, 3, 4});
  CHECK(ring.empty());
}

TEST_CASE("a full ring refuses and keeps what it has; a drained slot is free again") {
  SpscRing<int, 4> ring;
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 4; ++i) CHECK(ring.try_push(i));
    CHECK_FALSE(ring.try_push(4));
    CHECK(drained(ring, 1) == std::vector<int>{0});
    CHECK(ring.try_push(4));
    CHECK_FALSE(ring.try_push(5));
    // What came after it last looked waits for the next look.
    CHECK(drained(ring, 4) == std::vector<int>{1, 2, 3});
    CHECK(drained(ring, 4) == std::vector<int>{4});
  }
}

TEST_CASE("a slot is free while its value is looked at, so that a value may be answered by another") {
  SpscRing<int, 1> ring;
  CHECK(ring.try_push(0));
  int seen = -1;
  const std::size_t count = ring.drain(
      [&](int value) {
        seen = value;
        CHECK(ring.try_push(value + 1));
      },
      1);
  CHECK(count == 1);
  CHECK(seen == 0);
  CHECK(drained(ring, 1) == std::vector<int>{1});
}

struct Wide {
  std::uint64_t number;
  std::uint64_t complement;
};

TEST_CASE("two threads pass a million values through a few slots, whole and in order") {
  constexpr std::uint64_t kCount = 1'000'000;
  SpscRing<Wide, 64> ring;
  std::thread producer([&ring] {
    for (std::uint64_t i = 0; i < kCount;) {
      if (ring.try_push({i, ~i})) {
        ++i;
      } else {
        std::this_thread::yield();
      }
    }
  });
  std::uint64_t next = 0;
  std::uint64_t wrong = 0;
  while (next < kCount) {
    const std::size_t count = ring.drain(
        [&](const Wide& value) {
          if (value.number != next || value.complement != ~next) ++wrong;
          ++next;
        },
        1 + next % 100);
    if (count == 0) std::this_thread::yield();
  }
  producer.join();
  CHECK(wrong == 0);
  CHECK(ring.empty());
}

}  // namespace
}  // namespace kavach
