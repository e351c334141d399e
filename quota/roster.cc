#include "quota/roster.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace kavach::quota {
namespace {

constexpr std::size_t kSlotsMin = 8;

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
  if (now_s >= next_expiry_s_ && used_ > 0) rebuild(now_s, 0);
  return static_cast<std::int64_t>(used_);
}

void Roster::rebuild(std::int64_t now_s, std::size_t more) {
  std::vector<Slot> old;
  old.swap(slots_);
  const auto living = static_cast<std::size_t>(
      std::count_if(old.begin(), old.end(), [&](const Slot& slot) { return is_active(slot, now_s); }));
  slots_.resize(std::bit_ceil(std::max(kSlotsMin, (living + more) * 4 / 3 + 1)));
  used_ = 0;
  std::int64_t oldest = now_s;
  const std::size_t mask = slots_.size() - 1;
  for (const Slot& slot : old) {
    if (is_empty(slot) || !is_active(slot, now_s)) continue;
    std::size_t i = slot.fingerprint & mask;
    while (!is_empty(slots_[i])) i = (i + 1) & mask;
    slots_[i] = slot;
    ++used_;
    if (slot.seen_s != 0) oldest = std::min<std::int64_t>(oldest, slot.seen_s);
  }
  next_expiry_s_ = oldest + kActiveSeconds;
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
  if ((used_ + 1) * 4 > slots_.size() * 3) rebuild(seconds_of(now), used_ + 1);
  ++find_or_add(fingerprint).pending;
}

void Roster::settle(std::uint64_t fingerprint, bool durable, WallMicros now) noexcept {
  auto* slot = const_cast<Slot*>(find(fingerprint));
  if (slot == nullptr || slot->pending == 0) return;
  --slot->pending;
  if (durable) {
    slot->seen_s = std::max(slot->seen_s, static_cast<std::uint32_t>(seconds_of(now)));
  } else if (slot->seen_s == 0 && slot->pending == 0) {
    // An emptied slot would break the chains of others: it stays as one that has expired, until the next
    // rebuild.
    slot->seen_s = 1;
    next_expiry_s_ = 0;
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
  if ((used_ + 1) * 4 > slots_.size() * 3) rebuild(seconds_of(seen), used_ + 1);
  Slot& slot = find_or_add(fingerprint);
  slot.seen_s = std::max(slot.seen_s, static_cast<std::uint32_t>(seconds_of(seen)));
  next_expiry_s_ = std::min(next_expiry_s_ == 0 ? slot.seen_s + kActiveSeconds : next_expiry_s_,
                            slot.seen_s + kActiveSeconds);
}

}  // namespace kavach::quota
