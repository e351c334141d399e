// LeaseKeeper: a node's side of the lease protocol (DESIGN.md), for the organizations of one shard.
//
// A pure state machine: it sends through an Authority, is told of answers, connection and time, and never
// blocks. In the daemon the Authority is Redis (quota/redis), in tests/simulation a FleetState behind a bad
// network.
//
// A batch that needs more than the node holds waits for the authority's word, `reply_us` at most. From then
// on, and while there is no connection, the node lives on what it holds and refuses the rest for now; nobody
// waits again until the authority answers.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/metrics.h"
#include "quota/ledger.h"

namespace kavach::quota {

struct AgentsRequest {
  std::uint64_t seq = 0;  // echoed by the answer
  std::vector<std::uint64_t> fingerprints;
  std::vector<std::int64_t>
      ages_s;  // by `fingerprints`: how long ago each was seen; empty: all are in use now
  std::int64_t agents_max = kUnlimited;
  bool restate = false;  // they hold places already: after a loss of data, they get them whatever the count
};
struct AgentsReply {
  std::uint64_t seq = 0;
  std::vector<std::uint64_t> admitted;
  bool learning = false;  // unknown names are not admitted now, but may be later
  std::uint64_t epoch = 0;
};

// The way to the authority. Every message may be lost; an answer comes through LeaseKeeper::on_...().
class Authority {
 public:
  virtual ~Authority() = default;
  virtual void send(OrgLedger& org, const RenewRequest& request) = 0;
  virtual void send(OrgLedger& org, const AgentsRequest& request) = 0;
};

struct LeaseKeeperMetrics {
  Counter renewals, timeouts, older_boots, restated;
  Gauge held_events;      // leased and not spent
  Gauge unmirrored_cost;  // nano-dollars of use that the fleet may not have heard of: a budget's overshoot
  Gauge degraded_since;   // seconds since 1970; 0: the authority answers
  void add_to(MetricsRegistry& registry, std::uint32_t shard) const;
};

class LeaseKeeper final : public Fleet {
 public:
  struct Options {
    NodeId node = 0;
    std::uint64_t boot = 0;
    std::int64_t lease_us = 10 * kMicrosPerSecond;
    std::int64_t renew_us = kMicrosPerSecond;      // in the background, for organizations in use
    std::int64_t reply_us = 50 * kMicrosPerMilli;  // a batch waits no longer
    std::int64_t retry_us = kMicrosPerSecond;      // an unanswered question is asked anew
    // An answer that left nothing is the answer to all who ask within this time: who hammers at a limit does
    // not keep the authority from the others.
    std::int64_t final_us = 20 * kMicrosPerMilli;
    std::int64_t horizon_us = 2 * kMicrosPerSecond;  // a lease is for this long at the present rate
    std::int64_t idle_us = 5 * kMicrosPerSecond;     // then everything is given back
    std::int64_t burst_lease_us = kMicrosPerSecond;
    std::int64_t touch_us = 600 * kMicrosPerSecond;  // agents in use are shown to the fleet this often
    std::int64_t events_min = 16;                    // of one lease
    std::int64_t events_max = 100'000;
  };
  // `resume` is called with an organization whose waiting batches should be decided anew.
  LeaseKeeper(const Options& options, Authority& authority, std::function<void(OrgLedger&, Now)> resume);

  Answer renew(OrgLedger& org, const Ask& ask, Now now) override;
  bool shares_agents() const noexcept override { return true; }
  void note_use(OrgLedger& org) override { lease_of(org); }
  // The node's last life may hold a lease of it: it is restated when there is a connection.
  void note_restored(OrgLedger& org) override { lease_of(org); }
  Answer claim_agents(OrgLedger& org, std::span<const std::uint64_t> fingerprints, Now now) override;

  void on_start(Now now);      // the authority is away until it answers
  void on_connected(Now now);  // restates what every organization holds
  // The authority was found to have lost its data: restates what every organization holds.
  void on_forgotten(Now now);
  void on_disconnected(Now now);
  void on_reply(OrgLedger& org, const RenewReply& reply, Now now);
  void on_agents(OrgLedger& org, const AgentsReply& reply, Now now);
  // About every 100 ms: looks after a part of the organizations in use, after each within a second.
  void on_tick(Now now);
  // When on_deadline() is to be called; 0: nobody waits.
  MonoMicros next_deadline(Now now) const noexcept;
  // Whoever has waited for `reply_us` waits no more.
  void on_deadline(Now now);
  // Gives everything back that is not reserved. The answers need not be waited for.
  void on_stop(Now now);

  bool connected() const noexcept { return connected_; }
  const LeaseKeeperMetrics& metrics() const noexcept { return metrics_; }

 private:
  Lease& lease_of(OrgLedger& org);
  void send(OrgLedger& org, Lease& lease, Now now);
  void send_again(OrgLedger& org, Lease& lease, Now now);
  void send_agents(OrgLedger& org, Lease& lease, Now now);
  void show_agents(OrgLedger& org, Lease& lease, Now now);
  void resume(OrgLedger& org, Lease& lease, Now now);
  bool is_known_short(const OrgLedger& org, const Lease& lease, const Ask& ask, Now now) const noexcept;
  bool is_late(MonoMicros sent, Now now) const noexcept { return now.mono - sent >= options_.reply_us; }
  void note_degraded(bool degraded, Now now);
  void await(OrgLedger& org, Lease& lease);
  void give_up_waiting(OrgLedger& org, Lease& lease, Now now);
  void look_after(OrgLedger& org, Lease& lease, Now now);

  Options options_;
  Authority& authority_;
  std::function<void(OrgLedger&, Now)> resume_;
  bool connected_ = false;
  bool stopping_ = false;
  std::vector<OrgLedger*> known_;   // that were ever used: all that the authority may have to be told of
  std::vector<OrgLedger*> active_;  // those looked after
  std::size_t next_look_ = 0;       // into active_
  std::int64_t held_so_far_ = 0;    // of this round through active_
  std::int64_t unmirrored_so_far_ = 0;
  std::vector<OrgLedger*> awaited_;  // batches wait for the authority's word on these
  LeaseKeeperMetrics metrics_;
};

}  // namespace kavach::quota
