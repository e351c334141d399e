// Ids: text and bytes of a UUID, and the order of those that Kavach makes.
#include "engine/ids.h"

#include <doctest/doctest.h>

#include <array>
#include <set>
#include <string>

namespace kavach {
namespace {

constexpr WallMicros kNow = 1'779'719'400'123'456;

TEST_CASE("a UUID's text reads back, in either case") {
  const std::string text = "0197a3b4-c5d6-7e8f-9a0b-1c2d3e4f5a6b";
  const auto id = Uuid::parse(text);
  REQUIRE(id.has_value());
  CHECK(id->text() == text);
  CHECK(Uuid::parse("0197A3B4-C5D6-7E8F-9A0B-1C2D3E4F5A6B") == id);
  CHECK(Uuid::parse_canonical(text) == id);
  CHECK(id->bytes[0] == 0x01);
  CHECK(id->bytes[15] == 0x6b);
}

TEST_CASE("other texts are no UUID") {
  for (const char* text : {"", "0197a3b4c5d67e8f9a0b1c2d3e4f5a6b", "0197a3b4-c5d6-7e8f-9a0b-1c2d3e4f5a6",
                           "0197a3b4-c5d6-7e8f-9a0b-1c2d3e4f5a6b0", "0197a3b4-c5d6-7e8f-9a0b01c2d3e4f5a6b",
                           "0197a3b4-c5d6-7e8f-9a0b-1c2d3e4f5a6g", "{197a3b4-c5d6-7e8f-9a0b-1c2d3e4f5a6b",
                           "-197a3b4-c5d6-7e8f-9a0b-1c2d3e4f5a6b", "0197a3b4-c5d6-7e8f-9a0b-1c2d3e4f5a6 "}) {
    CAPTURE(text);
    CHECK_FALSE(Uuid::parse(text).has_value());
    CHECK_FALSE(Uuid::parse_canonical(text).has_value());
  }
}

TEST_CASE("the canonical form is lower case, and every character of a text counts") {
  const std::string text = "0197a3b4-c5d6-7e8f-9a0b-1c2d3e4f5a6b";
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string other = text;
      other[at] = static_cast<char>(byte);
      const auto id = Uuid::parse_canonical(other);
      const bool is_hex = (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'f');
      CHECK(id.has_value() == (text[at] == '-' ? byte == '-' : is_hex));
      if (id) CHECK(id->text() == other);
    }
  }
}

TEST_CASE("a UUIDv7 holds its millisecond, its version and variant, and rand_a is free for an index") {
  Random random(1);
  const std::string text = make_uuid7(kNow, random).text();
  // 1'779'719'400'123 ms = 0x19e5f8aeabb.
  CHECK(text.substr(0, 19) == "019e5f8a-eabb-7000-");
  CHECK(std::string("89ab").find(text[19]) != std::string::npos);
  CHECK_FALSE(make_uuid7(kNow, random).is_nil());
  CHECK(Uuid{}.is_nil());
}

TEST_CASE("ids sort by time, and the events of a batch by their index") {
  Random random(2);
  const Uuid batch = make_uuid7(kNow, random);
  const Uuid later = make_uuid7(kNow + kMicrosPerMilli, random);
  CHECK(event_id(batch, 0) == batch);
  for (std::uint32_t i = 1; i < 4096; ++i) CHECK(event_id(batch, i - 1) < event_id(batch, i));
  CHECK(event_id(batch, 4095) < later);
  CHECK(event_id(batch, 4095).text().substr(14, 4) == "7fff");
  CHECK(event_id(batch, 7).text().substr(18) == batch.text().substr(18));
}

TEST_CASE("ids of the same moment differ") {
  Random random;
  std::set<Uuid> seen;
  for (int i = 0; i < 10'000; ++i) seen.insert(make_uuid7(kNow, random));
  CHECK(seen.size() == 10'000);
}

TEST_CASE("a seeded stream is xoshiro256** seeded by splitmix64, another seed another stream") {
  Random random(0);
  // From the algorithms' reference implementations.
  CHECK(random.next() == 0x99ec5f36cb75f2b4);
  CHECK(random.next() == 0xbf6e1f784956452a);
  CHECK(random.next() == 0x1a5f849d4933e6e0);
  CHECK(Random(1).next() != Random(2).next());
  CHECK(Random().next() != Random().next());
}

TEST_CASE("secret bytes fill the whole of their place and never repeat") {
  std::array<std::uint8_t, 34> first{};
  std::array<std::uint8_t, 34> second{};
  fill_secret_random(first.data() + 1, 32);
  fill_secret_random(second.data() + 1, 32);
  CHECK(first != second);
  CHECK(first.front() == 0);
  CHECK(first.back() == 0);
}

TEST_CASE("bytes as hex are lower case, two digits each") {
  const std::array<std::uint8_t, 4> bytes = {0x00, 0x0f, 0xa5, 0xff};
  CHECK(to_hex(bytes.data(), bytes.size()) == "000fa5ff");
  CHECK(to_hex(bytes.data(), 0).empty());
}

}  // namespace
}  // namespace kavach
