#include "quota/dedup.h"

#include <algorithm>
#include <bit>
#include <functional>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/check.h"

namespace kavach::quota {
namespace {

constexpr std::uint64_t kNumberMask = ~DedupKey::kLowMask;

constexpr std::size_t kFirstSlots = 16;
// Grown to 2.5x of what lives, refilled to 4/5: 16 bytes a key become 20 to 40, up to 44 with what is free
// between the parts while they grow, and each key is moved once on average.
constexpr std::size_t kFullNumerator = 4;
constexpr std::size_t kFullDenominator = 5;
constexpr std::size_t kGrowPercent = 250;
// Keys spread evenly, so all parts would be full at the same time, and requests of that moment would wait for
// 256 of them to be moved, again with every doubling. On its way past this size each part grows by another
// factor, and from then on they take turns. The factors span one step of growth (2.5 * 4/5), and the smallest
// still leaves room for a tenth: at 1.25 a part would be full again at once, and be moved with every key.
constexpr std::size_t kStaggerSlots = 1024;
constexpr std::size_t kStaggerPercentMin = 140;
constexpr std::size_t kStaggerPercentMax = 280;
// What a part forgets at its bound, in parts of 256 of its keys: the first part of the table the least and
// the last one the most, so that they do not go on filling up at the same time.
constexpr std::size_t kForgetMin = 16;
constexpr std::size_t kForgetMax = 48;
// Keys that are looked at to tell which are the oldest.
constexpr std::size_t kAgesSampled = 512;

std::uint64_t number_of(std::uint64_t low) {
  return low & kNumberMask;
}

// The nearer way around the circle: after half of it, a shard that takes 100,000 batches a second is on its
// way for two months, and keys are swept out long before.
bool precedes(std::uint64_t a, std::uint64_t b) {
  return ((a - b) & kNumberMask) > kNumberMask / 2;
}

}  // namespace

DedupKey DedupHasher::operator()(const Uuid& scope, std::string_view key) const noexcept {
  if (key.empty()) return {};
  // Distinct projects get distinct seeds.
  const XXH128_hash_t hash = XXH3_128bits_withSeed(key.data(), key.size(), seed_ ^ scope.random_half());
  DedupKey made{hash.high64, hash.low64 & DedupKey::kLowMask};
  if (made.is_none()) made.high = 1;
  return made;
}

DedupTable::DedupTable(const Options& options)
    : options_(options),
      next_number_(options.first_number & kNumberMask),
      under_way_(kClaimsMax),
      first_of_hour_(static_cast<std::size_t>(options.window_hours) + 2) {
  const std::uint64_t part_slots = options.keys_max / kParts * kFullDenominator / kFullNumerator + 1;
  part_slots_max_ = std::max<std::uint64_t>(kFirstSlots, part_slots / kLineSlots * kLineSlots);
  ages_.reserve(2 * kAgesSampled);
  parts_.reserve(kParts);
  for (std::size_t i = 0; i < kParts; ++i) resize(parts_.emplace_back(*pages_), first_slots(i));
}

DedupTable::Number DedupTable::take_number() noexcept {
  if (next_number_ == 0) next_number_ = 1;
  const Number taken = next_number_;
  next_number_ = (next_number_ + 1) & kNumberMask;
  return taken;
}

DedupTable::Number& DedupTable::first_of_hour(std::int64_t hour) noexcept {
  return first_of_hour_[static_cast<std::size_t>(hour) % first_of_hour_.size()];
}

// Shards look at the clock at different moments, and a clock may be set back: then what comes counts as of
// the latest hour that there was, and is remembered a little longer.
void DedupTable::set_time(WallMicros now) {
  const std::int64_t hour = now / kMicrosPerHour;
  const std::int64_t kept = options_.window_hours + 1;
  if (hour > latest_hour_) {
    for (std::int64_t next = std::max(latest_hour_ + 1, hour - kept); next <= hour; ++next)
      first_of_hour(next) = take_number();
    latest_hour_ = hour;
  }
  horizon_ = first_of_hour(std::max(hour - options_.window_hours, latest_hour_ - kept));
}

DedupTable::Number DedupTable::begin(std::uint32_t holder, WallMicros now) {
  set_time(now);
  Number number = take_number();
  // Where an old claim takes long, the number that would stand in its place is left out.
  while (under_way_[number % kClaimsMax].number != 0) number = take_number();
  under_way_[number % kClaimsMax] = {number, holder};
  return number;
}

void DedupTable::end(Number claim) noexcept {
  under_way_[claim % kClaimsMax].number = 0;
}

std::uint64_t DedupTable::age(Number number) const noexcept {
  return (next_number_ - number) & kNumberMask;
}

bool DedupTable::is_under_way(Number number) const noexcept {
  return under_way_[number % kClaimsMax].number == number;
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

// What is under way holds its keys however long it takes. False for an empty slot, without a branch that
// would have to guess which those are.
bool DedupTable::expired(const Slot& slot) const noexcept {
  const Number number = number_of(slot.low);
  return (static_cast<unsigned>(number != 0) & static_cast<unsigned>(precedes(number, horizon_))) != 0 &&
         !is_under_way(number);
}

// The empty slots of a line are behind the others: see erase(). Counted without a branch, since nobody could
// guess its way. REQUIRES: the last one is empty.
inline DedupTable::Slot* DedupTable::first_empty(Slot* line) noexcept {
  const auto one = [&](unsigned k) { return static_cast<unsigned>(line[k].low != 0); };
  static_assert(kLineSlots == 4, "written out");
  return line + (one(0) + one(1) + one(2));
}

// Most keys are new, so that none of the comparisons holds.
inline DedupTable::Place DedupTable::look(Part& part, const DedupKey& key) noexcept {
  const std::size_t slots = part.slots.size();
  for (std::size_t i = home(key.high, slots);; i = i + kLineSlots == slots ? 0 : i + kLineSlots) {
    Slot* const line = &part.slots[i];
#pragma GCC unroll 4
    for (std::size_t k = 0; k < kLineSlots; ++k) {
      if (line[k].high == key.high && (line[k].low & DedupKey::kLowMask) == key.low && line[k].low != 0)
        return {line + k, true};
    }
    if (line[kLineSlots - 1].low == 0) return {first_empty(line), false};
  }
}

// The end of a key's chain, where the key is known to be absent.
inline DedupTable::Slot* DedupTable::free_slot(Part& part, std::uint64_t high) noexcept {
  const std::size_t slots = part.slots.size();
  for (std::size_t i = home(high, slots);; i = i + kLineSlots == slots ? 0 : i + kLineSlots) {
    Slot* const line = &part.slots[i];
    if (line[kLineSlots - 1].low == 0) return first_empty(line);
  }
}

// The slot of a key that is not in the table; `empty` is at the end of its chain. The number is the caller's.
inline DedupTable::Slot* DedupTable::occupy(Part& part, const DedupKey& key, Slot* empty) {
  if (part.used >= part.used_max) empty = make_room(part, key);
  ++part.used;
  empty->high = key.high;
  return empty;
}

DedupTable::Answer DedupTable::claim(const DedupKey& key, Number claim) {
  KAVACH_DCHECK(!key.is_none() && is_under_way(claim), "a claim needs a key, and to be under way");
  Part& part = part_of(key);
  auto [slot, found] = look(part, key);
  if (found) {
    const Number number = number_of(slot->low);
    if (number == claim) return {Found::kOwn};
    const UnderWay& other = under_way_[number % kClaimsMax];
    if (other.number == number) return {Found::kPending, other.holder};
    if (!precedes(number, horizon_)) return {Found::kRemembered};
  } else {
    slot = occupy(part, key, slot);
  }
  slot->low = key.low | claim;
  return {Found::kClaimed};
}

void DedupTable::release(const DedupKey& key, Number claim) noexcept {
  Part& part = part_of(key);
  const auto [slot, found] = look(part, key);
  if (!found || number_of(slot->low) != claim) return;
  erase(part, static_cast<std::size_t>(slot - part.slots.data()));
}

bool DedupTable::restore(const DedupKey& key, WallMicros seen, WallMicros now) {
  set_time(now);
  // A clock that ran ahead must not make a key outlive its window by years.
  const std::int64_t hour = std::min(seen, now) / kMicrosPerHour;
  if (key.is_none() || hour < now / kMicrosPerHour - options_.window_hours) return true;
  const Number number = first_of_hour(std::max(hour, latest_hour_ - options_.window_hours - 1));
  Part& part = part_of(key);
  auto [slot, found] = look(part, key);
  if (!found) {
    slot = occupy(part, key, slot);
  } else if (!precedes(number_of(slot->low), number)) {
    return false;  // known, and seen later
  }
  slot->low = key.low | number;
  return !found;
}

// In a part that is full; the place of the key, which is not in the table.
DedupTable::Slot* DedupTable::make_room(Part& part, const DedupKey& key) {
  // At the bound a rebuild of every insert would be quadratic: forget first.
  if (part.slots.size() < part_slots_max_ || !forget_oldest(part)) rebuild(part);
  return free_slot(part, key.high);
}

void DedupTable::resize(Part& part, std::size_t slots) {
  part.slots.resize(slots);
  part.used_max = static_cast<std::uint32_t>(slots * kFullNumerator / kFullDenominator - 1);
}

// Up to an eighth more than is expected, each part another size, so that they are not all full at the same
// time.
std::size_t DedupTable::first_slots(std::size_t part_index) const noexcept {
  const std::uint64_t expected = options_.keys_expected / kParts;
  const std::uint64_t keys = expected + expected * part_index / (8 * kParts);
  const std::uint64_t slots = std::min(keys * kFullDenominator / kFullNumerator, part_slots_max_);
  return whole_lines(std::max<std::uint64_t>(slots, kFirstSlots));
}

std::size_t DedupTable::expired_count(const Slots& slots) const noexcept {
  return static_cast<std::size_t>(
      std::count_if(slots.begin(), slots.end(), [this](const Slot& slot) { return expired(slot); }));
}

// Drops what is expired and gives what lives room to grow: up to the bound, and beyond it only when nothing
// can be forgotten, since the claims of batches under way have a bound of their own.
void DedupTable::rebuild(Part& part) {
  Slots old(part.slots.get_allocator());
  old.swap(part.slots);
  const std::size_t living = part.used - expired_count(old);
  const auto index = static_cast<std::size_t>(&part - parts_.data());
  const std::size_t first = first_slots(index);
  std::size_t wanted = std::max(first, living * kGrowPercent / 100);
  if (old.size() < std::max(kStaggerSlots, first + 1) && wanted >= std::max(kStaggerSlots, first + 1)) {
    const std::size_t percent =
        kStaggerPercentMin + (kStaggerPercentMax - kStaggerPercentMin) * index / kParts;
    wanted = living * percent / 100;
  }
  // Room for one more at least.
  const std::size_t least = (living + 2) * kFullDenominator / kFullNumerator + 1;
  resize(part, whole_lines(std::max(least, std::min<std::size_t>(wanted, part_slots_max_))));
  // Both are in the order of the fingerprints, but for a line or two.
  for (const Slot& slot : old) {
    if (slot.low != 0 && !expired(slot)) *free_slot(part, slot.high) = slot;
  }
  part.used = static_cast<std::uint32_t>(living);
}

// Of `oldest` keys of the part, the age of the youngest, as far as a sample tells. 0: the part holds only
// claims.
std::uint64_t DedupTable::age_of_oldest(const Part& part, std::size_t oldest) {
  const std::size_t slots = part.slots.size();
  ages_.clear();
  // Odd, since the first slots of lines hold older keys than the last ones. All, if those are claims' keys.
  for (std::size_t step = (slots / kAgesSampled) | 1; ages_.empty(); step = 1) {
    for (std::size_t i = 0; i < slots; i += step) {
      const Number number = number_of(part.slots[i].low);
      if (number != 0 && !is_under_way(number)) ages_.push_back(age(number));
    }
    if (step == 1) break;
  }
  if (ages_.empty()) return 0;
  const auto last = ages_.begin() + static_cast<std::ptrdiff_t>((ages_.size() - 1) * oldest / part.used);
  std::nth_element(ages_.begin(), last, ages_.end(), std::greater<>());
  return *last;
}

// At the bound, of a part that is full: many keys at once in one pass over the part, since to look for an old
// one with each new key costs several times as much. What is expired goes, too. False when the part holds
// only claims.
bool DedupTable::forget_oldest(Part& part) {
  const auto index = static_cast<std::size_t>(&part - parts_.data());
  const std::size_t share = kForgetMin + (kForgetMax - kForgetMin) * index / kParts;
  const std::size_t goal = std::max<std::size_t>(1, part.used * share / 256);
  const std::uint64_t old_age = age_of_oldest(part, goal);
  if (old_age == 0) return false;

  // Line by line, beginning behind one that is not full, where no chain goes on: each key moves to where it
  // would be put now, in its own line or one before it.
  const std::size_t slots = part.slots.size();
  std::size_t line = 0;
  while (part.slots[line + kLineSlots - 1].low != 0) line += kLineSlots;
  std::size_t forgotten = 0;
  for (std::size_t done = 0; done < slots; done += kLineSlots) {
    line = line + kLineSlots == slots ? 0 : line + kLineSlots;
    std::array<Slot, kLineSlots> old;
    std::copy_n(&part.slots[line], kLineSlots, old.begin());
    std::fill_n(&part.slots[line], kLineSlots, Slot{});
    for (const Slot& slot : old) {
      if (slot.low == 0) break;
      const Number number = number_of(slot.low);
      const std::uint64_t its_age = age(number);
      // Many may be of one age: those that were restored.
      const bool is_old = its_age > old_age || (its_age == old_age && forgotten < goal);
      if (expired(slot)) {
        ++forgotten;
      } else if (is_old && !is_under_way(number)) {
        ++forgotten;
        ++evicted_;
      } else {
        *free_slot(part, slot.high) = slot;
      }
    }
  }
  part.used -= static_cast<std::uint32_t>(forgotten);
  return true;
}

// Closes the hole by moving back whatever may stand there (linear probing without tombstones).
void DedupTable::erase(Part& part, std::size_t index) noexcept {
  const std::size_t slots = part.slots.size();
  std::size_t hole = index;
  for (std::size_t i = hole + 1 == slots ? 0 : hole + 1; part.slots[i].low != 0;
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
}

void DedupTable::sweep(WallMicros now) {
  set_time(now);
  Part& part = parts_[next_sweep_];
  next_sweep_ = (next_sweep_ + 1) % kParts;
  if (expired_count(part.slots) * 4 > part.used) rebuild(part);
}

std::uint64_t DedupTable::size() const noexcept {
  std::uint64_t used = 0;
  for (const Part& part : parts_) used += part.used;
  return used;
}

std::uint64_t DedupTable::bytes() const noexcept {
  return pages_->bytes() + under_way_.capacity() * sizeof(UnderWay) +
         first_of_hour_.capacity() * sizeof(Number) + parts_.capacity() * sizeof(Part) + sizeof(*this);
}

}  // namespace kavach::quota
