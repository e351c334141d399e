#include "quota/dedup.h"

#include <algorithm>
#include <bit>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/check.h"

namespace kavach::quota {
namespace {

// Stamps. 0 is an empty slot; 1..kHours are hours modulo kHours (5.6 years; half of them is far beyond any
// window, and sweeping removes a key long before its stamp comes round); the rest are claims.
constexpr std::uint64_t kStampMask = 0xffff;
constexpr std::uint16_t kHours = 0xbfff;
constexpr std::uint16_t kFirstClaim = 0xc000;
static_assert(kFirstClaim + DedupTable::kClaimsMax - 1 == 0xffff, "claims fill the rest of the 16 bits");

constexpr std::size_t kFirstSlots = 16;
// Grown to 1.9x of what lives, refilled to 4/5: 16 bytes a key become 20 to 30.
constexpr std::size_t kFullNumerator = 4;
constexpr std::size_t kFullDenominator = 5;
// Keys spread evenly, so all parts would be full at the same time, and requests of that moment would wait for
// 256 of them to be moved, again with every doubling. On its way past this size each part grows by another
// factor, and from then on they take turns. The factors span one step of growth (1.9 * 4/5), and the smallest
// still leaves room for a tenth: at 1.25 a part would be full again at once, and be moved with every key.
constexpr std::size_t kStaggerSlots = 1024;
constexpr std::size_t kStaggerPercentMin = 140;
constexpr std::size_t kStaggerPercentMax = 213;
// Slots that are looked at for the oldest key when the table is at its bound.
constexpr std::size_t kEvictionReach = 32;

std::uint16_t stamp_of(std::uint64_t low) {
  return static_cast<std::uint16_t>(low & kStampMask);
}
bool is_claim(std::uint16_t stamp) {
  return stamp >= kFirstClaim;
}
std::uint16_t claim_stamp(std::uint32_t claim) {
  return static_cast<std::uint16_t>(kFirstClaim + claim);
}

std::int64_t hour_number(WallMicros t) {
  return (t / kMicrosPerHour) % kHours;
}
std::uint16_t hour_stamp(WallMicros t) {
  return static_cast<std::uint16_t>(1 + hour_number(t));
}

// The nearer way around the circle. Negative for a stamp that is ahead of `now`: shards look at the clock at
// different moments, and a clock may be set back.
std::int64_t age_hours(std::uint16_t stamp, std::int64_t hour) {
  const std::int64_t age = hour - (stamp - 1);
  if (age > kHours / 2) return age - kHours;
  if (age < -kHours / 2) return age + kHours;
  return age;
}

bool is_full(std::size_t used, std::size_t slots) {
  return (used + 1) * kFullDenominator > slots * kFullNumerator;
}

}  // namespace

DedupKey DedupHasher::operator()(const Uuid& scope, std::string_view key) const noexcept {
  if (key.empty()) return {};
  // Distinct projects get distinct seeds.
  const XXH128_hash_t hash = XXH3_128bits_withSeed(key.data(), key.size(), seed_ ^ scope.random_half());
  DedupKey made{hash.high64, hash.low64 & ~kStampMask};
  if (made.is_none()) made.high = 1;
  return made;
}

DedupTable::DedupTable(const Options& options) : options_(options) {
  KAVACH_CHECK(options.window_hours < kHours / 2, "the stamps cannot tell such a window from the future");
  const std::uint64_t part_slots = options.keys_max / kParts * kFullDenominator / kFullNumerator + 1;
  part_slots_max_ = std::max<std::uint64_t>(kFirstSlots, part_slots / kLineSlots * kLineSlots);
  for (Part& part : parts_) part.slots.resize(kFirstSlots);
}

std::size_t DedupTable::whole_lines(std::size_t slots) noexcept {
  return (slots + kLineSlots - 1) / kLineSlots * kLineSlots;
}

// The 32 bits behind those that chose the part, scaled to the table's lines: any number will do, not only
// powers of two, so that growing wastes less.
std::size_t DedupTable::home(std::uint64_t high, std::size_t slots) noexcept {
  const std::uint64_t line = ((high >> 24) & 0xffffffff) * (slots / kLineSlots) >> 32;
  return static_cast<std::size_t>(line) * kLineSlots;
}

void DedupTable::prefetch(const DedupKey& key) const noexcept {
  const Part& part = parts_[key.high >> 56];
  __builtin_prefetch(&part.slots[home(key.high, part.slots.size())]);
}

bool DedupTable::expired(std::uint16_t stamp, std::int64_t hour) const noexcept {
  return !is_claim(stamp) && age_hours(stamp, hour) > options_.window_hours;
}

// All slots of a line are compared at once: where in its line a key is cannot be guessed, and a wrong guess
// costs more than the comparison. The empty slots of a line are behind the others: see erase().
DedupTable::Place DedupTable::look(Part& part, const DedupKey& key) noexcept {
  const std::size_t slots = part.slots.size();
  for (std::size_t i = home(key.high, slots);; i = i + kLineSlots == slots ? 0 : i + kLineSlots) {
    Slot* const line = &part.slots[i];
    const auto bit = [&](unsigned k) { return static_cast<unsigned>(line[k].high == key.high) << k; };
    static_assert(kLineSlots == 4,
                  "written out: in a loop the comparison takes half as many instructions again");
    unsigned same = bit(0) | bit(1) | bit(2) | bit(3);
    for (; same != 0; same &= same - 1) {
      Slot* const slot = line + std::countr_zero(same);
      if ((slot->low & ~kStampMask) == key.low) return {slot, true};
    }
    if (stamp_of(line[kLineSlots - 1].low) != 0) continue;
    Slot* empty = line;
    while (stamp_of(empty->low) != 0) ++empty;
    return {empty, false};
  }
}

DedupTable::Answer DedupTable::claim(const DedupKey& key, std::uint32_t claim, WallMicros now) {
  KAVACH_DCHECK(!key.is_none() && claim < kClaimsMax, "a claim needs a key and a number");
  Part& part = part_of(key);
  auto [slot, found] = look(part, key);
  if (found) {
    const std::uint16_t stamp = stamp_of(slot->low);
    if (stamp == claim_stamp(claim)) return {Found::kOwn};
    if (is_claim(stamp)) return {Found::kPending, static_cast<std::uint32_t>(stamp - kFirstClaim)};
    if (!expired(stamp, hour_number(now))) return {Found::kRemembered};
  } else {
    slot = &insert(part, key, slot, now);
  }
  slot->low = key.low | claim_stamp(claim);
  return {Found::kClaimed};
}

void DedupTable::remember(const DedupKey& key, std::uint32_t claim, WallMicros now) noexcept {
  const auto [slot, found] = look(part_of(key), key);
  if (found && stamp_of(slot->low) == claim_stamp(claim)) slot->low = key.low | hour_stamp(now);
}

void DedupTable::release(const DedupKey& key, std::uint32_t claim) noexcept {
  Part& part = part_of(key);
  const auto [slot, found] = look(part, key);
  if (!found || stamp_of(slot->low) != claim_stamp(claim)) return;
  erase(part, static_cast<std::size_t>(slot - part.slots.data()));
}

void DedupTable::restore(const DedupKey& key, WallMicros seen, WallMicros now) {
  // A clock that ran ahead must not make a key outlive its window by years.
  seen = std::min(seen, now);
  if (key.is_none() || seen < now - options_.window_hours * kMicrosPerHour) return;
  Part& part = part_of(key);
  auto [slot, found] = look(part, key);
  if (!found) {
    slot = &insert(part, key, slot, now);
  } else if (age_hours(stamp_of(slot->low), hour_number(now)) <=
             age_hours(hour_stamp(seen), hour_number(now))) {
    return;  // known, and seen later
  }
  slot->low = key.low | hour_stamp(seen);
}

// Puts the key into `empty`, its place; makes room first when the part is full, and then looks for its place
// again. The stamp is the caller's. REQUIRES: the key is not in the table.
DedupTable::Slot& DedupTable::insert(Part& part, const DedupKey& key, Slot* empty, WallMicros now) {
  if (is_full(part.used, part.slots.size())) {
    // At the bound a rebuild of every insert would be quadratic: forget first.
    if (part.slots.size() < part_slots_max_ || !forget_oldest_near(part, key, now)) rebuild(part, now);
    empty = look(part, key).slot;
  }
  ++part.used;
  ++size_;
  empty->high = key.high;
  return *empty;
}

// Drops what is expired and gives what lives room to grow: up to the bound, and beyond it only when nothing
// can be forgotten, since the claims of batches under way have a bound of their own.
void DedupTable::rebuild(Part& part, WallMicros now) {
  Slots old;
  old.swap(part.slots);
  const std::int64_t hour = hour_number(now);
  std::size_t living = 0;
  for (const Slot& slot : old) {
    const std::uint16_t stamp = stamp_of(slot.low);
    if (stamp != 0 && !expired(stamp, hour)) ++living;
  }
  std::size_t wanted = std::max(kFirstSlots, living * 19 / 10);
  if (old.size() < kStaggerSlots && wanted >= kStaggerSlots) {
    const auto index = static_cast<std::size_t>(&part - parts_.data());
    const std::size_t percent =
        kStaggerPercentMin + (kStaggerPercentMax - kStaggerPercentMin) * index / kParts;
    wanted = living * percent / 100;
  }
  // Room for one more at least.
  const std::size_t least = (living + 1) * kFullDenominator / kFullNumerator + 1;
  part.slots.resize(whole_lines(std::max(least, std::min<std::size_t>(wanted, part_slots_max_))));
  const std::size_t slots = part.slots.size();
  for (const Slot& slot : old) {
    const std::uint16_t stamp = stamp_of(slot.low);
    if (stamp == 0 || expired(stamp, hour)) continue;
    std::size_t i = home(slot.high, slots);
    while (stamp_of(part.slots[i].low) != 0) i = i + 1 == slots ? 0 : i + 1;
    part.slots[i] = slot;
  }
  size_ -= part.used - living;
  part.used = static_cast<std::uint32_t>(living);
}

// At the bound: forgets the oldest remembered key near the new key's place. False when the part holds only
// claims.
bool DedupTable::forget_oldest_near(Part& part, const DedupKey& key, WallMicros now) noexcept {
  const std::size_t slots = part.slots.size();
  std::size_t i = home(key.high, slots);
  std::size_t oldest = slots;
  std::int64_t oldest_age = 0;
  for (std::size_t step = 0; step < slots && (oldest == slots || step < kEvictionReach); ++step) {
    const std::uint16_t stamp = stamp_of(part.slots[i].low);
    if (stamp != 0 && !is_claim(stamp)) {
      const std::int64_t age = age_hours(stamp, hour_number(now));
      if (oldest == slots || age > oldest_age) {
        oldest = i;
        oldest_age = age;
      }
    }
    i = i + 1 == slots ? 0 : i + 1;
  }
  if (oldest == slots) return false;
  erase(part, oldest);
  if (oldest_age <= options_.window_hours) ++evicted_;
  return true;
}

// Closes the hole by moving back whatever may stand there (linear probing without tombstones).
void DedupTable::erase(Part& part, std::size_t index) noexcept {
  const std::size_t slots = part.slots.size();
  std::size_t hole = index;
  for (std::size_t i = hole + 1 == slots ? 0 : hole + 1; stamp_of(part.slots[i].low) != 0;
       i = i + 1 == slots ? 0 : i + 1) {
    const std::size_t at_home = home(part.slots[i].high, slots);
    // May slot i stand in the hole? Yes unless its home lies cyclically behind the hole, up to i.
    const bool home_behind_hole =
        hole < i ? (at_home > hole && at_home <= i) : (at_home > hole || at_home <= i);
    if (home_behind_hole) continue;
    part.slots[hole] = part.slots[i];
    hole = i;
  }
  part.slots[hole] = Slot{};
  --part.used;
  --size_;
}

void DedupTable::sweep(WallMicros now) {
  Part& part = parts_[next_sweep_];
  const std::int64_t hour = hour_number(now);
  next_sweep_ = (next_sweep_ + 1) % kParts;
  const auto expired_count = std::count_if(part.slots.begin(), part.slots.end(), [&](const Slot& slot) {
    const std::uint16_t stamp = stamp_of(slot.low);
    return stamp != 0 && expired(stamp, hour);
  });
  if (static_cast<std::size_t>(expired_count) * 4 > part.used) rebuild(part, now);
}

std::uint64_t DedupTable::bytes() const noexcept {
  std::uint64_t slots = 0;
  for (const Part& part : parts_) slots += part.slots.capacity();
  return slots * sizeof(Slot) + sizeof(*this);
}

}  // namespace kavach::quota
