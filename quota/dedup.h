// Dedup: which idempotency keys an org has sent within the window, in 16 bytes a key.
//
// A key is remembered as an 88-bit fingerprint and the 40-bit number of the claim that brought it: 88 bits
// collide within 10 million keys with a probability of 2e-13. Claims are numbered in order, so their numbers
// tell the age of a key, and the short list of claims under way tells whether it is durable: when a batch is,
// none of its keys has to be touched again. The table is split in parts that grow one at a time, so that no
// insert pays for moving everything, and is bounded: a part that is full at the bound forgets about an eighth
// of its keys, the oldest (the store's unique index is the last line against duplicates).
//
// One instance per shard, for the orgs whose home it is. Owner thread only. Time is an argument.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "engine/huge_pages.h"
#include "engine/ids.h"

namespace kavach::quota {

// Fingerprint of (project, idempotency key).
struct DedupKey {
  // The bits of `low` that may be set; the others are the place of a claim's number.
  static constexpr std::uint64_t kLowMask = ~std::uint64_t{0} << 40;

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
    // Room for so many is taken by the constructor and never given back: until there are more, no claim waits
    // for a part to be moved and for memory.
    std::uint64_t keys_expected = 0;
    std::uint64_t first_number = 1;  // of a claim; for tests, since the numbers come round after 2^40
  };
  // Claims under way at most; more is backpressure.
  static constexpr std::uint32_t kClaimsMax = 16'384;
  // The number of a claim. Never 0.
  using Number = std::uint64_t;

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
  DedupTable(DedupTable&&) = default;
  DedupTable& operator=(DedupTable&&) = delete;  // the parts would outlive their memory

  // A claim for the keys of a batch. `holder` is what others are told who find one of them pending. It is
  // under way until end(). REQUIRES: fewer than kClaimsMax claims are under way.
  Number begin(std::uint32_t holder, WallMicros now);
  // REQUIRES: !key.is_none(), `claim` is under way.
  Answer claim(const DedupKey& key, Number claim);
  // The claim lets go of the key, if it holds it: as if it had never been sent.
  void release(const DedupKey& key, Number claim) noexcept;
  // What the claim holds by now becomes remembered.
  void end(Number claim) noexcept;

  // At start: a key seen at `seen`, from the store or the journal. False: it is known already.
  bool restore(const DedupKey& key, WallMicros seen, WallMicros now);
  // Brings the key's place into the cache.
  void prefetch(const DedupKey& key) const noexcept;

  // Forgets expired keys in one part of the table; call now and then, all parts come round.
  void sweep(WallMicros now);

  std::uint64_t size() const noexcept;  // remembered and pending, expired ones until swept
  std::uint64_t bytes() const noexcept;
  // Keys that were forgotten before their window ended.
  std::uint64_t evicted() const noexcept { return evicted_; }

 private:
  struct Slot {
    std::uint64_t high = 0;
    std::uint64_t low = 0;  // fingerprint | number; 0: empty
  };
  // Slots are searched a cache line at a time: a key's chain begins at the first slot of its line.
  static constexpr std::size_t kLineBytes = 64;
  static constexpr std::size_t kLineSlots = kLineBytes / sizeof(Slot);
  using Slots = std::vector<Slot, HugePageAllocator<Slot>>;
  struct Part {
    explicit Part(HugePages& pages) : slots(HugePageAllocator<Slot>(pages)) {}
    Slots slots;  // as many as fill whole lines
    std::uint32_t used = 0;
    std::uint32_t used_max = 0;  // it is full
  };
  // Where a key is, or, when it is not in the table, the empty slot at the end of its chain.
  struct Place {
    Slot* slot;
    bool found;
  };
  struct UnderWay {
    Number number = 0;  // 0: none
    std::uint32_t holder = 0;
  };
  static constexpr std::size_t kParts = 256;

  Part& part_of(const DedupKey& key) noexcept { return parts_[key.high >> 56]; }
  static std::size_t whole_lines(std::size_t slots) noexcept;  // rounded up
  static std::size_t home(std::uint64_t high, std::size_t slots) noexcept;
  static Slot* first_empty(Slot* line) noexcept;
  static Place look(Part& part, const DedupKey& key) noexcept;
  static Slot* free_slot(Part& part, std::uint64_t high) noexcept;
  Slot* occupy(Part& part, const DedupKey& key, Slot* empty);
  Slot* make_room(Part& part, const DedupKey& key);
  static void resize(Part& part, std::size_t slots);
  std::size_t first_slots(std::size_t part_index) const noexcept;
  void rebuild(Part& part);
  void erase(Part& part, std::size_t index) noexcept;
  bool forget_oldest(Part& part);
  std::uint64_t age_of_oldest(const Part& part, std::size_t oldest);

  Number take_number() noexcept;
  std::uint64_t age(Number number) const noexcept;  // in claims; never 0
  Number& first_of_hour(std::int64_t hour) noexcept;
  void set_time(WallMicros now);
  bool is_under_way(Number number) const noexcept;
  bool expired(const Slot& slot) const noexcept;
  std::size_t expired_count(const Slots& slots) const noexcept;

  Options options_;
  std::uint64_t part_slots_max_;
  std::unique_ptr<HugePages> pages_ = std::make_unique<HugePages>();  // of the parts: outlives them
  std::vector<Part> parts_;                                           // kParts of them
  std::size_t next_sweep_ = 0;
  std::uint64_t evicted_ = 0;
  std::vector<std::uint64_t> ages_;  // of age_of_oldest(), kept for its memory

  Number next_number_;
  std::vector<UnderWay> under_way_;  // by the last bits of their numbers
  // The first number of each hour from the one before the window to the latest, which is never the number of
  // a claim, by the hour modulo their count.
  std::vector<Number> first_of_hour_;
  std::int64_t latest_hour_ = 0;  // 0: no time has been told yet
  Number horizon_ = 0;            // what came before it is expired
};

}  // namespace kavach::quota
