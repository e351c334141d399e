// FleetState: who in the fleet holds how much of one organization's allowance; the authority that leases come
// from.
//
// A pure state machine: time is an argument, nothing is sent. It runs in three places that must agree: inside
// the process when there is no Redis (the node is its own fleet), as the model in tests/simulation, and as
// the Lua script quota/redis/renew.lua, which tests/quota/redis_script_test.cc holds against this class. The
// protocol, its invariants and what loss of data does: quota/DESIGN.md.
#pragma once

#include <array>
#include <boost/container/small_vector.hpp>
#include <cstdint>
#include <vector>

#include "engine/clock.h"
#include "quota/limits.h"

namespace kavach::quota {

// A node's lasting identity (derived from its journal's id) and what distinguishes its messages.
using NodeId = std::uint64_t;

// What a node says of itself: absolute numbers, so that a message that is lost, doubled or late does no harm.
struct NodeRecord {
  NodeId node = 0;
  std::uint64_t boot = 0;  // grows with every start of the node
  std::uint64_t seq = 0;   // grows with every message of one boot
  std::int64_t spent = 0;  // units of the day that are settled
  std::int64_t held = 0;   // units of the day that it may still spend, reserved ones included
  WallMicros expires = 0;  // from then on nobody waits for it to give back; what it holds stays charged to it
};

struct RenewRequest {
  NodeId node = 0;
  std::uint64_t boot = 0;
  std::uint64_t seq = 0;
  std::int64_t lease_us = 0;

  // Daily events. `day` is the day that `spent` and `keep` belong to (days since 1970): the authority's clock
  // decides which one is on. `limit` as the policy has it.
  std::int64_t day = 0;
  std::int64_t spent = 0;
  std::int64_t keep = 0;  // of what it holds; less than before gives the rest back
  std::int64_t need = 0;  // at once
  // The least of it that is of use: less is not granted while other nodes may give something back, or each of
  // them could sit on a remainder that is too small for anybody's batch.
  std::int64_t need_min = 0;
  std::int64_t want = 0;  // for the time to come; at least `need`
  std::int64_t limit = kUnlimited;

  // Burst: units for use within burst_lease_us, and those of an earlier grant that were not used.
  std::int64_t burst_want = 0;
  std::int64_t burst_limit = kUnlimited;
  std::int64_t burst_unused = 0;
  std::int64_t burst_unused_second = 0;  // RenewReply::burst_second of that grant

  // This node's own use in the running periods, absolute; only sent for organizations with budgets.
  bool has_usage = false;
  std::array<std::int64_t, kBudgetPeriods> periods{};  // period_number()
  std::array<Usage, kBudgetPeriods> usage{};

  // What this node remembers of others, after the authority lost data (a new epoch): a record that is newer
  // than the authority's own replaces it, and stands until that node speaks itself.
  std::vector<NodeRecord> hearsay;
};

struct RenewReply {
  enum class Status : std::uint8_t {
    kGranted,
    kRepeated,   // this seq or a later one was answered before; nothing changed, only `seq` may be used
    kOlderBoot,  // the node has started again since; `boot` is the one on record
    kOtherDay,   // the numbers are of another day than `day`: say what was spent and is held of that
  };
  Status status = Status::kGranted;
  std::uint64_t boot = 0;
  std::uint64_t seq = 0;

  std::int64_t day = 0;             // the authority's day
  std::int64_t day_left_us = 0;     // until it ends
  std::int64_t ceiling = 0;         // the node may go on until its spent units of `day` reach this
  std::int64_t charged = 0;         // spent and held by the whole fleet, this node included
  std::int64_t held_elsewhere = 0;  // by other nodes that may still give it back
  bool hungry = false;              // somebody got less than it needed: keep only what you need
  bool learning = false;            // nothing new is leased until every node has restated what it holds
  std::uint64_t epoch = 0;          // another one than before: data was lost, tell what you remember

  std::int64_t burst_granted = 0;
  std::int64_t burst_second = 0;   // name of the grant
  std::int64_t burst_left = 0;     // of the window, after this grant
  std::int64_t burst_wait_us = 0;  // until some of the window is free again, when nothing was granted

  std::array<std::int64_t, kBudgetPeriods> periods{};
  std::array<Usage, kBudgetPeriods> others_usage{};  // of all other nodes, in `periods`

  std::vector<NodeRecord> others;  // for hearsay
};

// The authority's memory as a whole. It is another epoch after a restart or a loss of data; for a while
// nothing new is leased then, until the nodes have restated what they hold.
struct Epoch {
  std::uint64_t number = 0;
  bool learning = false;
};

// Counts the time of learning. Only time in which messages come counts: while the authority is stopped nobody
// can restate anything.
class EpochClock {
 public:
  explicit EpochClock(std::int64_t learn_us) : learn_us_(learn_us), learned_us_(learn_us) {}
  // Data was lost, or may have been.
  void begin(WallMicros now) noexcept;
  // With every message.
  Epoch at(WallMicros now) noexcept;

 private:
  std::int64_t learn_us_;
  std::int64_t learned_us_;
  std::uint64_t number_ = 1;
  WallMicros latest_ = 0;
};

class FleetState {
 public:
  static constexpr std::int64_t kBurstWindowSeconds = 60;

  struct Options {
    std::int64_t burst_slack_s = 0;  // how long a burst grant may be used: the window is longer by that much
    std::int64_t hungry_us = 2 * kMicrosPerSecond;
  };
  explicit FleetState(const Options& options) : options_(options) {}

  // `now` never goes back.
  RenewReply renew(const RenewRequest& request, WallMicros now, Epoch epoch);

  // At start: `units` were granted in the second that contains `when`. In ascending order of seconds.
  void restore_burst(WallMicros when, std::int64_t units);

  // For checks: units of the day that are spent or held.
  std::int64_t charged() const noexcept;
  std::int64_t charged_to(NodeId node) const noexcept;
  bool is_expired(NodeId node, WallMicros now) const noexcept;
  std::int64_t day() const noexcept { return day_; }
  std::size_t bytes() const noexcept;

 private:
  struct BurstSecond {
    std::uint32_t second = 0;  // since 1970
    std::uint32_t units = 0;   // saturates
  };
  struct PeriodUsage {
    NodeId node = 0;
    std::size_t period = 0;  // a BudgetPeriod
    std::int64_t number = 0;
    Usage usage;
  };

  void turn_day(WallMicros now);
  NodeRecord& record_of(NodeId node);
  void take_hearsay(const RenewRequest& request);
  void grant_daily(const RenewRequest& request, NodeRecord& record, WallMicros now, bool learning,
                   RenewReply& reply);
  void grant_burst(const RenewRequest& request, WallMicros now, RenewReply& reply);
  void add_usage(const RenewRequest& request, RenewReply& reply);

  Options options_;
  std::int64_t day_ = -1;
  WallMicros hungry_until_ = 0;
  // Room within for a node that is its own fleet and for an organization that sends now and then: no other
  // place of memory has to be waited for.
  boost::container::small_vector<NodeRecord, 1> records_;
  boost::container::small_vector<BurstSecond, 4> burst_;  // ascending
  std::vector<PeriodUsage> usage_;
};

}  // namespace kavach::quota
