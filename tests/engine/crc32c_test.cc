// CRC32C: published vectors, a bit-by-bit reference, and continuation.
#include "engine/crc32c.h"

#include "engine/ids.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

namespace kavach {
namespace {

std::uint32_t crc_of(std::string_view bytes) {
  return crc32c(0, bytes.data(), bytes.size());
}

// The definition: one bit at a time.
std::uint32_t slow_crc_of(std::string_view bytes) {
  std::uint32_t crc = ~0U;
  for (const char byte : bytes) {
    crc ^= static_cast<std::uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78U : 0U);
  }
  return ~crc;
}

std::string random_bytes(Random& random, std::size_t size) {
  std::string bytes(size, '\0');
  std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<char>(random.next()); });
  return bytes;
}

TEST_CASE("the vectors of RFC 3720 B.4 and the usual check value") {
  CHECK(crc_of("") == 0);
  CHECK(crc_of("123456789") == 0xe3069283);
  CHECK(crc_of(std::string(32, '\0')) == 0x8a9136aa);
  CHECK(crc_of(std::string(32, '\xff')) == 0x62a8ab43);
  std::string rising(32, '\0');
  for (std::size_t i = 0; i < rising.size(); ++i) rising[i] = static_cast<char>(i);
  CHECK(crc_of(rising) == 0x46dd794e);
  CHECK(crc_of(std::string(rising.rbegin(), rising.rend())) == 0x113fdb5c);
}

TEST_CASE("every size and alignment equals the definition") {
  Random random(1);
  const std::string bytes = random_bytes(random, 80);
  for (std::size_t begin = 0; begin < 8; ++begin) {
    for (std::size_t size = 0; begin + size <= bytes.size(); ++size) {
      const std::string_view part = std::string_view(bytes).substr(begin, size);
      CHECK(crc_of(part) == slow_crc_of(part));
    }
  }
}

TEST_CASE("a checksum continues over any split") {
  Random random(2);
  const std::string bytes = random_bytes(random, 100);
  for (std::size_t split = 0; split <= bytes.size(); ++split) {
    const std::uint32_t first = crc32c(0, bytes.data(), split);
    CHECK(crc32c(first, bytes.data() + split, bytes.size() - split) == crc_of(bytes));
  }
}

TEST_CASE("every flipped bit is noticed") {
  Random random(3);
  std::string bytes = random_bytes(random, 64);
  const std::uint32_t whole = crc_of(bytes);
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    CHECK(crc_of(bytes) != whole);
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
  }
}

}  // namespace
}  // namespace kavach
