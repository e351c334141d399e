#include "quota/roster.h"

#include <algorithm>
#include <utility>

namespace kavach::quota {
namespace {

// Three agents, as many as the free tier has, in one line of the cache.
constexpr std::size_t kSlotsMin = 4;

std::int64_t seconds_of(WallMicros now) noexcept {
  return now / kMicrosPerSecond;
}

}  // namespace

const Roster::Slot* Roster::find(std::uint64_t fingerprint) const noexcept {
  if (slots_.empty()) return nullptr;
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t i = fingerprint & mask; !is_empty(slots_[i]); i = (i + 1) & mask) {
    if (slots_[i].fingerprint == fingerprint) return &slots_[i];
  }
  return nullptr;
}

bool Roster::contains(std::uint64_t fingerprint, WallMicros now) const noexcept {
  const Slot* slot = find(fingerprint);
  return slot != nullptr && is_active(*slot, seconds_of(now));
}

std::int64_t Roster::size(WallMicros now) {
  const std::int64_t now_s = seconds_of(now);
  if (now_s >= next_expiry_s_ && used_ > 0) expire(now_s);
  return static_cast<std::int64_t>(used_);
}

void Roster::expire(std::int64_t now_s) noexcept {
  std::int64_t oldest = now_s;
  for (std::size_t i = 0; i < slots_.size();) {
    const Slot& slot = slots_[i];
    if (!is_empty(slot) && !is_active(slot, now_s)) {
      erase(i);  // another one may stand here now
      continue;
    }
    if (slot.seen_s != 0) oldest = std::min<std::int64_t>(oldest, slot.seen_s);
    ++i;
  }
  next_expiry_s_ = oldest + kActiveSeconds;
}

void Roster::erase(std::size_t index) noexcept {
  const std::size_t mask = slots_.size() - 1;
  std::size_t hole = index;
  for (std::size_t i = (hole + 1) & mask; !is_empty(slots_[i]); i = (i + 1) & mask) {
    // May slot i stand in the hole? Only if its chain begins there or before.
    const std::size_t from_home = (i - (slots_[i].fingerprint & mask)) & mask;
    if (from_home < ((i - hole) & mask)) continue;
    slots_[hole] = slots_[i];
    hole = i;
  }
  slots_[hole] = Slot{};
  --used_;
}

void Roster::make_room(std::int64_t now_s) {
  const auto is_full = [&](std::size_t used) { return (used + 1) * 4 > slots_.size() * 3; };
  if (!is_full(used_)) return;
  // What is dropped must be worth the search: a 16th at least, or the next agent would search again.
  expire(now_s);
  if (!is_full(used_ + used_ / 16)) return;
  std::vector<Slot> old(std::max(kSlotsMin, slots_.size() * 2));
  old.swap(slots_);
  const std::size_t mask = slots_.size() - 1;
  for (const Slot& slot : old) {
    if (is_empty(slot)) continue;
    std::size_t i = slot.fingerprint & mask;
    while (!is_empty(slots_[i])) i = (i + 1) & mask;
    slots_[i] = slot;
  }
}

// The caller makes the slot it gets non-empty.
Roster::Slot& Roster::find_or_add(std::uint64_t fingerprint) {
  const std::size_t mask = slots_.size() - 1;
  std::size_t i = fingerprint & mask;
  for (; !is_empty(slots_[i]); i = (i + 1) & mask) {
    if (slots_[i].fingerprint == fingerprint) return slots_[i];
  }
  slots_[i].fingerprint = fingerprint;
  ++used_;
  return slots_[i];
}

void Roster::take(std::uint64_t fingerprint, WallMicros now) {
  make_room(seconds_of(now));
  ++find_or_add(fingerprint).pending;
}

void Roster::settle(std::uint64_t fingerprint, bool durable, WallMicros now) noexcept {
  auto* slot = const_cast<Slot*>(find(fingerprint));
  if (slot == nullptr || slot->pending == 0) return;
  --slot->pending;
  if (durable) {
    slot->seen_s = std::max(slot->seen_s, static_cast<std::uint32_t>(seconds_of(now)));
  } else if (slot->seen_s == 0 && slot->pending == 0) {
    erase(static_cast<std::size_t>(slot - slots_.data()));
  }
}

void Roster::list_active(WallMicros now, std::vector<std::uint64_t>& out,
                         std::vector<std::int64_t>& ages_s) const {
  const std::int64_t now_s = seconds_of(now);
  for (const Slot& slot : slots_) {
    if (is_empty(slot) || !is_active(slot, now_s)) continue;
    out.push_back(slot.fingerprint);
    // A batch under way is use that is going on.
    ages_s.push_back(slot.pending > 0 ? 0 : std::max<std::int64_t>(0, now_s - slot.seen_s));
  }
}

void Roster::restore(std::uint64_t fingerprint, WallMicros seen) {
  make_room(seconds_of(seen));
  Slot& slot = find_or_add(fingerprint);
  slot.seen_s = std::max(slot.seen_s, static_cast<std::uint32_t>(seconds_of(seen)));
  next_expiry_s_ = std::min(next_expiry_s_ == 0 ? slot.seen_s + kActiveSeconds : next_expiry_s_,
                            slot.seen_s + kActiveSeconds);
}

}  // namespace kavach::quota
