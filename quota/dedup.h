// Dedup: which idempotency keys an org has sent within the window, in 16 bytes a key.
//
// A key is remembered as a 112-bit fingerprint and a 16-bit stamp: the hour in which it was seen, or, while
// its batch is not yet durable, the number of the claim that holds it. 112 bits collide within 10 million
// keys with a probability of 1e-20. The table is split in parts that grow one at a time, so that no insert
// pays for moving everything, and is bounded: at the bound the oldest key near the new one's place is
// forgotten (the store's unique index is the last line against duplicates).
//
// One instance per shard, for the orgs whose home it is. Owner thread only. Time is an argument.
#pragma once

#include <array>
#include <boost/align/aligned_allocator.hpp>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "engine/ids.h"

namespace kavach::quota {

// Fingerprint of (project, idempotency key). `low`'s last 16 bits are zero: the stamp's place.
struct DedupKey {
  std::uint64_t high = 0;
  std::uint64_t low = 0;

  bool is_none() const noexcept { return high == 0 && low == 0; }  // an event without a key
  friend bool operator==(const DedupKey&, const DedupKey&) = default;
};

// Makes fingerprints; the seed is random per process, so that nobody can aim keys at one place of the table.
// Any thread.
class DedupHasher {
 public:
  explicit DedupHasher(std::uint64_t seed) : seed_(seed) {}
  // `scope` is the project's id; an empty key gives is_none().
  DedupKey operator()(const Uuid& scope, std::string_view key) const noexcept;

 private:
  std::uint64_t seed_;
};

class DedupTable {
 public:
  struct Options {
    std::int64_t window_hours = 168;
    std::uint64_t keys_max = 10'000'000;
  };
  // Claims under way at most; more is backpressure.
  static constexpr std::uint32_t kClaimsMax = 16'384;

  enum class Found : std::uint8_t {
    kClaimed,     // was absent, is now held by the claim
    kOwn,         // this claim holds it already: a duplicate within the batch
    kRemembered,  // durable: a duplicate
    kPending,     // another claim holds it: its outcome decides
  };
  struct Answer {
    Found found;
    std::uint32_t holder = 0;  // of kPending
  };

  explicit DedupTable(const Options& options);

  // REQUIRES: !key.is_none(), claim < kClaimsMax.
  Answer claim(const DedupKey& key, std::uint32_t claim, WallMicros now);
  // The batch is durable: what `claim` holds of `key` becomes remembered.
  void remember(const DedupKey& key, std::uint32_t claim, WallMicros now) noexcept;
  // The batch failed: as if it had never been sent.
  void release(const DedupKey& key, std::uint32_t claim) noexcept;
  // At start: a key seen at `seen`, from the store or the journal.
  void restore(const DedupKey& key, WallMicros seen, WallMicros now);
  // Brings the key's place into the cache.
  void prefetch(const DedupKey& key) const noexcept;

  // Forgets expired keys in one part of the table; call now and then, all parts come round.
  void sweep(WallMicros now);

  std::uint64_t size() const noexcept { return size_; }  // remembered and pending, expired ones until swept
  std::uint64_t bytes() const noexcept;
  // Keys that were forgotten before their window ended.
  std::uint64_t evicted() const noexcept { return evicted_; }

 private:
  struct Slot {
    std::uint64_t high = 0;
    std::uint64_t low = 0;  // fingerprint | stamp; stamp 0: empty
  };
  // Slots are searched a cache line at a time: a key's chain begins at the first slot of its line.
  static constexpr std::size_t kLineBytes = 64;
  static constexpr std::size_t kLineSlots = kLineBytes / sizeof(Slot);
  using Slots = std::vector<Slot, boost::alignment::aligned_allocator<Slot, kLineBytes>>;
  struct Part {
    Slots slots;  // as many as fill whole lines
    std::uint32_t used = 0;
  };
  // Where a key is, or, when it is not in the table, the empty slot at the end of its chain.
  struct Place {
    Slot* slot;
    bool found;
  };
  static constexpr std::size_t kParts = 256;

  Part& part_of(const DedupKey& key) noexcept { return parts_[key.high >> 56]; }
  static std::size_t whole_lines(std::size_t slots) noexcept;  // rounded up
  static std::size_t home(std::uint64_t high, std::size_t slots) noexcept;
  static Place look(Part& part, const DedupKey& key) noexcept;
  bool expired(std::uint16_t stamp, std::int64_t hour) const noexcept;
  Slot& insert(Part& part, const DedupKey& key, Slot* empty, WallMicros now);
  void rebuild(Part& part, WallMicros now);
  void erase(Part& part, std::size_t index) noexcept;
  bool forget_oldest_near(Part& part, const DedupKey& key, WallMicros now) noexcept;

  Options options_;
  std::uint64_t part_slots_max_;
  std::array<Part, kParts> parts_;
  std::size_t next_sweep_ = 0;
  std::uint64_t size_ = 0;
  std::uint64_t evicted_ = 0;
};

}  // namespace kavach::quota
