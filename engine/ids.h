// Identifiers: UUIDv7 (RFC 9562), the one form of every id that Kavach makes.
//
// Prefixes that a dialect shows (`key_`, `evt_`) are added and taken off at the edge.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "engine/clock.h"

namespace kavach {

// 16 bytes in network order; value type.
struct Uuid {
  std::array<std::uint8_t, 16> bytes{};

  friend auto operator<=>(const Uuid&, const Uuid&) = default;

  bool is_nil() const noexcept { return *this == Uuid{}; }
  // The second half: of a UUIDv7 it is random, so it tells ids apart, spreads them and seeds.
  std::uint64_t random_half() const noexcept {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + 8, sizeof(word));
    return word;
  }
  // Lower-case 8-4-4-4-12.
  std::string text() const;
  // Writes the 36 characters of text() without allocating.
  void write_text(char* out) const noexcept;
  // Accepts only the 36-character form, either case.
  static std::optional<Uuid> parse(std::string_view text) noexcept;
  // Accepts only what text() writes, so that nothing of the text is lost.
  static std::optional<Uuid> parse_canonical(std::string_view text) noexcept;
};

struct UuidHash {
  std::size_t operator()(const Uuid& id) const noexcept {
    return static_cast<std::size_t>(id.random_half() * 0x9e3779b97f4a7c15ULL);
  }
};

// A random stream of one thread (xoshiro256**, seeded by the kernel): ids and jitter, never secrets.
class Random {
 public:
  Random();
  explicit Random(std::uint64_t seed) noexcept;
  std::uint64_t next() noexcept;

 private:
  std::array<std::uint64_t, 4> state_;
};

// A fresh UUIDv7: 48 bits of milliseconds, rand_a = 0, 62 random bits.
Uuid make_uuid7(WallMicros now, Random& random) noexcept;

// The id of the i-th event of a batch: the batch's own id with rand_a larger by index. So ids sort in order
// of acceptance, and the same journal frame yields the same ids however often it is read. A part of a batch
// whose id is that of its first event has the same ids too. REQUIRES: rand_a (0 in what make_uuid7() makes)
// and index sum up to less than 4096.
Uuid event_id(const Uuid& batch_id, std::uint32_t index) noexcept;

// Fills `out` from the kernel; for secrets such as API keys. Aborts if the kernel has no randomness.
void fill_secret_random(void* out, std::size_t size) noexcept;

std::string to_hex(const std::uint8_t* bytes, std::size_t size);

}  // namespace kavach
