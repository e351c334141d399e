// Roster: which agents of one organization were active in the last 24 hours (contract/agentkavach.md 2.7).
//
// An agent is a fingerprint of its name and the second in which it was last seen: 16 bytes. A place that a
// batch under way has taken is pending, and free again when that batch fails. A power of two of places, at
// most three quarters of them taken; it grows with new agents only, and keeps what it once needed. Owner
// thread only; time is an argument.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/clock.h"

namespace kavach::quota {

class Roster {
 public:
  static constexpr std::int64_t kActiveSeconds = 24 * 3'600;

  // Whether the agent holds a place now.
  bool contains(std::uint64_t fingerprint, WallMicros now) const noexcept;
  // Places taken now, pending ones included.
  std::int64_t size(WallMicros now);

  // Takes a place (or another claim on the place that it has) for a batch under way.
  void take(std::uint64_t fingerprint, WallMicros now);
  // The outcome of one take().
  void settle(std::uint64_t fingerprint, bool durable, WallMicros now) noexcept;
  // At start, and from the fleet: was last seen at `seen`.
  void restore(std::uint64_t fingerprint, WallMicros seen);

  // Appends who holds a place, and how long ago each was seen.
  void list_active(WallMicros now, std::vector<std::uint64_t>& out, std::vector<std::int64_t>& ages_s) const;

  std::size_t bytes() const noexcept { return slots_.capacity() * sizeof(Slot); }

 private:
  struct Slot {
    std::uint64_t fingerprint = 0;
    std::uint32_t seen_s = 0;   // 0: never, only pending
    std::uint32_t pending = 0;  // seen_s and pending both 0: empty
  };
  static bool is_empty(const Slot& slot) noexcept { return slot.seen_s == 0 && slot.pending == 0; }
  static bool is_active(const Slot& slot, std::int64_t now_s) noexcept {
    return slot.pending > 0 || (slot.seen_s != 0 && slot.seen_s + kActiveSeconds > now_s);
  }

  const Slot* find(std::uint64_t fingerprint) const noexcept;
  Slot& find_or_add(std::uint64_t fingerprint);
  // Drops what is no longer active, in place.
  void expire(std::int64_t now_s) noexcept;
  // Closes the hole by moving back whatever may stand there.
  void erase(std::size_t index) noexcept;
  // Makes room for one more when there is none.
  void make_room(std::int64_t now_s);

  std::vector<Slot> slots_;  // a power of two, linear probing; empty until the first agent
  std::size_t used_ = 0;
  std::int64_t next_expiry_s_ = 0;  // no agent ceases to be active before this second
};

}  // namespace kavach::quota
