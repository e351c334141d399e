#include "quota/fleet_state.h"

#include <algorithm>
#include <limits>

#include "engine/calendar.h"
#include "engine/money.h"

namespace kavach::quota {
namespace {

std::int64_t floor_second(WallMicros now) noexcept {
  return now / kMicrosPerSecond;
}

std::uint32_t saturating_u32(std::int64_t value) noexcept {
  return static_cast<std::uint32_t>(std::min<std::int64_t>(value, std::numeric_limits<std::uint32_t>::max()));
}

}  // namespace

void EpochClock::begin(WallMicros now) noexcept {
  ++number_;
  learned_us_ = 0;
  latest_ = now;
}

Epoch EpochClock::at(WallMicros now) noexcept {
  // A pause that is longer than this between two messages of a whole fleet is no silence.
  constexpr std::int64_t kStep = 200 * kMicrosPerMilli;
  if (learned_us_ < learn_us_) learned_us_ += std::clamp<std::int64_t>(now - latest_, 0, kStep);
  latest_ = now;
  return {number_, learned_us_ < learn_us_};
}

RenewReply FleetState::renew(const RenewRequest& request, WallMicros now, Epoch epoch) {
  turn_day(now);
  RenewReply reply;
  reply.epoch = epoch.number;
  reply.boot = request.boot;
  reply.seq = request.seq;
  reply.day = day_;
  reply.day_left_us = period_end(BudgetPeriod::kDaily, now) - now;
  NodeRecord& record = record_of(request.node);
  if (request.boot < record.boot) {
    reply.status = RenewReply::Status::kOlderBoot;
    reply.boot = record.boot;
    return reply;
  }
  if (request.boot == record.boot && request.seq <= record.seq) {
    reply.status = RenewReply::Status::kRepeated;
    return reply;
  }
  if (request.day != day_) {
    // Its word on another day says nothing of this one; what is on record stays.
    reply.status = RenewReply::Status::kOtherDay;
    return reply;
  }
  record.boot = request.boot;
  record.seq = request.seq;
  record.expires = now + request.lease_us;
  take_hearsay(request);  // may move `record`
  grant_daily(request, record_of(request.node), now, epoch.learning, reply);
  grant_burst(request, now, reply);
  if (request.has_usage) add_usage(request, reply);
  return reply;
}

// Every count of the day begins anew. The records stay: boot and seq still tell old messages from new ones.
// Only those of nodes that are gone for more than a day go, so that a fleet that changes does not gather
// them.
void FleetState::turn_day(WallMicros now) {
  const std::int64_t today = period_number(BudgetPeriod::kDaily, now);
  if (today == day_) return;
  day_ = today;
  hungry_until_ = 0;
  const auto is_gone = [&](const NodeRecord& record) { return record.expires + kMicrosPerDay <= now; };
  records_.erase(std::remove_if(records_.begin(), records_.end(), is_gone), records_.end());
  for (NodeRecord& record : records_) record.spent = record.held = 0;
}

NodeRecord& FleetState::record_of(NodeId node) {
  const auto found =
      std::find_if(records_.begin(), records_.end(), [&](const NodeRecord& r) { return r.node == node; });
  if (found != records_.end()) return *found;
  NodeRecord made;
  made.node = node;
  return records_.emplace_back(made);
}

// What others remember of a node counts where it is newer than the record: never against that node's later
// word.
void FleetState::take_hearsay(const RenewRequest& request) {
  for (const NodeRecord& heard : request.hearsay) {
    if (heard.node == request.node) continue;
    NodeRecord& record = record_of(heard.node);
    const bool newer = heard.boot > record.boot || (heard.boot == record.boot && heard.seq > record.seq);
    if (newer) record = heard;
  }
}

void FleetState::grant_daily(const RenewRequest& request, NodeRecord& record, WallMicros now, bool learning,
                             RenewReply& reply) {
  record.spent = request.spent;
  record.held = request.keep;

  std::int64_t charged_to_others = 0;
  for (const NodeRecord& other : records_) {
    if (other.node == record.node) continue;
    charged_to_others = saturating_add(charged_to_others, saturating_add(other.spent, other.held));
    if (other.expires > now) reply.held_elsewhere = saturating_add(reply.held_elsewhere, other.held);
    reply.others.push_back(other);
  }
  if (!learning) {
    const std::int64_t own = saturating_add(record.spent, record.held);
    const std::int64_t charged = saturating_add(charged_to_others, own);
    const std::int64_t left =
        request.limit == kUnlimited ? kUnlimited : std::max<std::int64_t>(0, request.limit - charged);
    // The need in full; beyond it a share, so that the last units do not all go to who asks first.
    const auto nodes = static_cast<std::int64_t>(records_.size());
    const std::int64_t share = left == kUnlimited || nodes == 1 ? left : left / (2 * nodes);
    std::int64_t granted = std::min({left, request.want, std::max(request.need, share)});
    if (granted < request.need_min && reply.held_elsewhere > 0) granted = 0;
    record.held = saturating_add(record.held, granted);
    if (granted < request.need) hungry_until_ = now + options_.hungry_us;
  }
  reply.ceiling = saturating_add(record.spent, record.held);
  reply.charged = saturating_add(charged_to_others, reply.ceiling);
  reply.hungry = now < hungry_until_;
  reply.learning = learning;
}

void FleetState::restore_burst(WallMicros when, std::int64_t units) {
  const std::uint32_t second = saturating_u32(floor_second(when));
  if (burst_.empty() || burst_.back().second != second) burst_.push_back({second, 0});
  burst_.back().units = saturating_u32(burst_.back().units + units);
}

// A sliding window of whole seconds: what was granted in the last 60 (and the slack) and in the present one
// counts. So no 60 s hold more than the limit, wherever they begin.
void FleetState::grant_burst(const RenewRequest& request, WallMicros now, RenewReply& reply) {
  const std::int64_t second = floor_second(now);
  const std::int64_t oldest = second - kBurstWindowSeconds - options_.burst_slack_s;
  burst_.erase(burst_.begin(), std::find_if(burst_.begin(), burst_.end(),
                                            [&](const BurstSecond& b) { return b.second >= oldest; }));
  for (BurstSecond& b : burst_) {
    if (b.second == request.burst_unused_second)
      b.units -= std::min(b.units, saturating_u32(request.burst_unused));
  }
  std::int64_t used = 0;
  for (const BurstSecond& b : burst_) used = saturating_add(used, b.units);
  const std::int64_t left =
      request.burst_limit == kUnlimited ? kUnlimited : std::max<std::int64_t>(0, request.burst_limit - used);
  const std::int64_t granted = std::min(left, request.burst_want);
  if (granted > 0) {
    if (burst_.empty() || burst_.back().second != second) burst_.push_back({saturating_u32(second), 0});
    burst_.back().units = saturating_u32(burst_.back().units + granted);
  }
  reply.burst_granted = granted;
  reply.burst_second = second;
  reply.burst_left = left == kUnlimited ? kUnlimited : left - granted;
  for (const BurstSecond& b : burst_) {
    if (b.units == 0) continue;
    reply.burst_wait_us =
        (std::int64_t{b.second} + kBurstWindowSeconds + options_.burst_slack_s + 1) * kMicrosPerSecond - now;
    break;
  }
}

// What a node has said of a period stands, also for one that is late to turn to the next.
void FleetState::add_usage(const RenewRequest& request, RenewReply& reply) {
  reply.periods = request.periods;
  for (std::size_t i = 0; i < kBudgetPeriods; ++i) {
    const std::int64_t number = request.periods[i];
    std::erase_if(usage_, [&](const PeriodUsage& u) { return u.period == i && u.number + 1 < number; });
    PeriodUsage* own = nullptr;
    for (PeriodUsage& known : usage_) {
      if (known.period != i || known.number != number) continue;
      if (known.node == request.node) {
        own = &known;
      } else {
        reply.others_usage[i] += known.usage;
      }
    }
    if (own == nullptr) own = &usage_.emplace_back(PeriodUsage{request.node, i, number, {}});
    own->usage = request.usage[i];
  }
}

std::int64_t FleetState::charged() const noexcept {
  std::int64_t sum = 0;
  for (const NodeRecord& record : records_)
    sum = saturating_add(sum, saturating_add(record.spent, record.held));
  return sum;
}

std::int64_t FleetState::charged_to(NodeId node) const noexcept {
  for (const NodeRecord& record : records_) {
    if (record.node == node) return saturating_add(record.spent, record.held);
  }
  return 0;
}

bool FleetState::is_expired(NodeId node, WallMicros now) const noexcept {
  return std::none_of(records_.begin(), records_.end(),
                      [&](const NodeRecord& record) { return record.node == node && record.expires > now; });
}

std::size_t FleetState::bytes() const noexcept {
  std::size_t sum = sizeof(*this) + usage_.capacity() * sizeof(PeriodUsage);
  if (records_.capacity() > records_.static_capacity) sum += records_.capacity() * sizeof(NodeRecord);
  if (burst_.capacity() > burst_.static_capacity) sum += burst_.capacity() * sizeof(BurstSecond);
  return sum;
}

}  // namespace kavach::quota
