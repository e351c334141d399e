#include "quota/lease_keeper.h"

#include <algorithm>
#include <utility>

#include "engine/money.h"

namespace kavach::quota {

struct Lease {
  // The question under way. There is one at a time.
  std::uint64_t seq = 0;
  bool asked = false;
  Now sent;
  std::int64_t need_sent = 0;
  std::int64_t burst_sent = 0;
  // Of batches that wait and are not covered by the question under way.
  std::int64_t need = 0;
  std::int64_t burst_need = 0;

  // The answer that batches are being decided with: what it did not grant is not there.
  bool resuming = false;
  bool short_of_events = false;
  bool short_of_burst = false;

  // Rate of spending: events per second, smoothed over about the horizon.
  std::int64_t spent_seen = 0;
  MonoMicros rate_since = 0;
  double rate = 0;
  MonoMicros last_use = 0;

  std::uint64_t epoch = 0;
  std::vector<NodeRecord> others;
  std::vector<NodeRecord> hearsay;  // of the epoch before, told until it was heard
  bool hearsay_sent = false;        // with the question under way

  // Agents.
  std::uint64_t last_agents_seq = 0;
  std::uint64_t agents_seq = 0;  // of the question under way
  bool agents_asked = false;
  MonoMicros agents_sent = 0;
  std::vector<std::uint64_t> agents_wanted;
  bool agents_answered = false;  // while resuming: who is not in the roster has no place
  bool agents_learning = false;
  MonoMicros touched = 0;
  bool restate_agents = false;  // until it was heard
  std::uint64_t restate_seq = 0;
  MonoMicros restated = 0;

  bool active = false;
};

LeaseKeeper::LeaseKeeper(const Options& options, Authority& authority,
                         std::function<void(OrgLedger&, Now)> resume)
    : options_(options), authority_(authority), resume_(std::move(resume)) {}

Lease& LeaseKeeper::lease_of(OrgLedger& org) {
  if (org.lease == nullptr) org.lease = std::make_shared<Lease>();
  Lease& lease = *org.lease;
  if (!lease.active) {
    lease.active = true;
    active_.push_back(&org);
  }
  return lease;
}

Fleet::Answer LeaseKeeper::renew(OrgLedger& org, const Ask& ask, Now now) {
  Lease& lease = lease_of(org);
  lease.last_use = now.mono;
  if (!connected_ || stopping_) return Answer::kAway;
  if (lease.asked && is_late(lease.sent.mono, now)) return Answer::kAway;
  if (lease.resuming) {
    // Decided with the answer at hand, unless that granted all it was asked for and others took it.
    const bool final =
        (ask.events_need == 0 || lease.short_of_events) && (ask.burst_need == 0 || lease.short_of_burst);
    if (final) return Answer::kDone;
  }
  lease.need = saturating_add(lease.need, ask.events_need);
  lease.burst_need = saturating_add(lease.burst_need, ask.burst_need);
  if (!lease.asked && !lease.resuming) send(org, lease, now);
  return Answer::kPending;
}

// What it would like to hold beside what batches need at once: enough for a while at the present rate.
void LeaseKeeper::send(OrgLedger& org, Lease& lease, Now now) {
  RenewRequest request;
  request.node = options_.node;
  request.boot = options_.boot;
  request.seq = ++lease.seq;
  request.lease_us = options_.lease_us;
  request.day = org.day;
  request.spent = org.spent;
  const auto per_horizon =
      static_cast<std::int64_t>(lease.rate * static_cast<double>(options_.horizon_us) / 1e6);
  const std::int64_t target = std::clamp(per_horizon, options_.events_min, options_.events_max);
  const bool idle = stopping_ || now.mono - lease.last_use >= options_.idle_us;
  const std::int64_t wish = idle || org.hungry ? 0 : target;
  // Never more than it says: what it gives up it stops spending before the message leaves.
  const std::int64_t give_up = idle         ? org.available()
                               : org.hungry ? org.available() - target / 2
                                            : org.available() - 2 * target;
  if (give_up > 0) org.ceiling -= give_up;
  request.keep = org.ceiling - org.spent;
  request.need = std::exchange(lease.need, 0);
  request.want = saturating_add(request.need,
                                std::max<std::int64_t>(0, wish - std::max<std::int64_t>(0, org.available())));
  request.limit = org.policy == nullptr ? 0 : org.policy->events_per_day;
  request.burst_limit = org.policy == nullptr ? 0 : org.policy->burst_per_minute;
  request.burst_want = std::exchange(lease.burst_need, 0);
  if (request.burst_want > 0 || now.mono >= org.burst_expires) give_back_burst(org, request);
  if (request.burst_want > 0 && !idle) {
    const auto ahead =
        static_cast<std::int64_t>(lease.rate * static_cast<double>(options_.burst_lease_us) / 2e6);
    request.burst_want = saturating_add(request.burst_want, ahead);
  }
  request.has_usage = org.policy != nullptr && !org.policy->budgets.empty();
  request.periods = org.periods;
  request.usage = org.own;
  request.hearsay = lease.hearsay;
  lease.hearsay_sent = !lease.hearsay.empty();
  lease.asked = true;
  lease.sent = now;
  lease.need_sent = request.need;
  lease.burst_sent = request.burst_want;
  metrics_.renewals.add();
  authority_.send(org, request);
}

void LeaseKeeper::on_reply(OrgLedger& org, const RenewReply& reply, Now now) {
  Lease& lease = lease_of(org);
  if (!lease.asked || reply.seq != lease.seq) return;  // a late or doubled answer
  lease.asked = false;
  note_degraded(false, now);
  switch (reply.status) {
    case RenewReply::Status::kGranted:
      break;
    case RenewReply::Status::kOtherDay:
      turn_day(org, reply.day);
      lease.need += lease.need_sent;
      lease.burst_need += lease.burst_sent;
      return send(org, lease, now);
    case RenewReply::Status::kOlderBoot:
      // The clock that boots are numbered by was set back.
      metrics_.older_boots.add();
      options_.boot = reply.boot + 1;
      lease.need += lease.need_sent;
      lease.burst_need += lease.burst_sent;
      return send(org, lease, now);
    case RenewReply::Status::kRepeated:
      lease.need += lease.need_sent;
      lease.burst_need += lease.burst_sent;
      return send(org, lease, now);
  }
  const std::int64_t before = org.ceiling;
  take_over(org, reply, lease.sent);
  if (reply.burst_granted > 0) org.burst_expires = lease.sent.mono + options_.burst_lease_us;
  lease.short_of_events = lease.need_sent > 0 && org.ceiling - before < lease.need_sent;
  lease.short_of_burst = lease.burst_sent > 0 && reply.burst_granted < lease.burst_sent;
  for (std::size_t i = 0; i < kBudgetPeriods; ++i) {
    if (reply.periods[i] == org.periods[i]) org.others[i] = reply.others_usage[i];
  }
  if (lease.hearsay_sent) lease.hearsay.clear();
  if (lease.epoch != 0 && lease.epoch != reply.epoch) {
    lease.hearsay = std::move(lease.others);
    lease.restate_agents = true;
    show_agents(org, lease, now);
  }
  lease.epoch = reply.epoch;
  lease.others = reply.others;
  if (!lease.hearsay.empty()) send(org, lease, now);
  resume(org, lease, now);
  if (!lease.asked && (lease.need > 0 || lease.burst_need > 0)) send(org, lease, now);
}

void LeaseKeeper::resume(OrgLedger& org, Lease& lease, Now now) {
  lease.resuming = true;
  resume_(org, now);
  lease.resuming = false;
  lease.short_of_events = lease.short_of_burst = lease.agents_answered = false;
}

Fleet::Answer LeaseKeeper::claim_agents(OrgLedger& org, std::span<const std::uint64_t> fingerprints,
                                        Now now) {
  Lease& lease = lease_of(org);
  lease.last_use = now.mono;
  if (!connected_ || stopping_) return Answer::kAway;
  if (lease.agents_asked && is_late(lease.agents_sent, now)) return Answer::kAway;
  if (lease.resuming && lease.agents_answered) return lease.agents_learning ? Answer::kAway : Answer::kDone;
  lease.agents_wanted.insert(lease.agents_wanted.end(), fingerprints.begin(), fingerprints.end());
  if (!lease.agents_asked) send_agents(org, lease, now);
  return Answer::kPending;
}

void LeaseKeeper::send_agents(OrgLedger& org, Lease& lease, Now now) {
  AgentsRequest request;
  request.seq = lease.agents_seq = ++lease.last_agents_seq;
  request.fingerprints = std::exchange(lease.agents_wanted, {});
  request.agents_max = org.policy == nullptr ? 0 : org.policy->agents_max;
  lease.agents_asked = true;
  lease.agents_sent = now.mono;
  authority_.send(org, request);
}

void LeaseKeeper::on_agents(OrgLedger& org, const AgentsReply& reply, Now now) {
  Lease& lease = lease_of(org);
  // Those that were only shown to the fleet are in the roster, and were not seen now.
  for (const std::uint64_t fingerprint : reply.admitted) {
    if (!org.roster.contains(fingerprint, now.wall)) org.roster.restore(fingerprint, now.wall);
  }
  if (lease.restate_agents && reply.seq == lease.restate_seq) {
    lease.restate_agents = false;
    return;
  }
  if (!lease.agents_asked || reply.seq != lease.agents_seq) return;
  lease.agents_asked = false;
  note_degraded(false, now);
  // Those who asked meanwhile are asked for now, before anybody takes this answer for theirs.
  if (!lease.agents_wanted.empty()) return send_agents(org, lease, now);
  lease.agents_answered = true;
  lease.agents_learning = reply.learning;
  resume(org, lease, now);
  if (!lease.asked && (lease.need > 0 || lease.burst_need > 0)) send(org, lease, now);
}

void LeaseKeeper::on_connected(Now now) {
  connected_ = true;
  for (OrgLedger* org : active_) {
    Lease& lease = *org->lease;
    lease.restate_agents = true;
    metrics_.restated.add();
    send(*org, lease, now);
    show_agents(*org, lease, now);
  }
}

void LeaseKeeper::on_disconnected(Now now) {
  connected_ = false;
  note_degraded(true, now);
  const std::vector<OrgLedger*> active = active_;
  for (OrgLedger* org : active) {
    Lease& lease = *org->lease;
    lease.asked = lease.agents_asked = false;
    lease.need = lease.burst_need = 0;
    lease.agents_wanted.clear();
    resume(*org, lease, now);
  }
}

void LeaseKeeper::note_degraded(bool degraded, Now now) {
  const bool was = metrics_.degraded_since.value() != 0;
  if (degraded == was) return;
  metrics_.degraded_since.set(degraded ? now.wall / kMicrosPerSecond : 0);
}

void LeaseKeeper::on_tick(Now now) {
  std::int64_t held = 0;
  const std::vector<OrgLedger*> active = active_;
  for (OrgLedger* org : active) {
    look_after(*org, *org->lease, now);
    held = saturating_add(held, std::max<std::int64_t>(0, org->available()));
  }
  std::erase_if(active_, [](OrgLedger* org) { return !org->lease->active; });
  metrics_.held_events.set(held);
}

void LeaseKeeper::look_after(OrgLedger& org, Lease& lease, Now now) {
  // The rate, from what was spent since the last look.
  const std::int64_t used = org.spent + org.reserved;
  if (lease.rate_since == 0 || used < lease.spent_seen) {
    lease.spent_seen = used;
    lease.rate_since = now.mono;
  } else if (now.mono - lease.rate_since >= 100 * kMicrosPerMilli) {
    const double seconds = static_cast<double>(now.mono - lease.rate_since) / 1e6;
    const double present = static_cast<double>(used - lease.spent_seen) / seconds;
    lease.rate += (present - lease.rate) * 0.25;
    lease.spent_seen = used;
    lease.rate_since = now.mono;
  }
  if (lease.asked && is_late(lease.sent.mono, now)) {
    note_degraded(true, now);
    if (!org.waiting.empty()) {
      metrics_.timeouts.add();
      lease.need = lease.burst_need = 0;
      resume(org, lease, now);
    }
  }
  if (lease.agents_asked && is_late(lease.agents_sent, now) && !org.waiting.empty()) {
    note_degraded(true, now);
    metrics_.timeouts.add();
    resume(org, lease, now);
  }
  if (!connected_) return;
  const bool day_is_over = now.mono >= org.day_ends;
  const bool idle = now.mono - lease.last_use >= options_.idle_us;
  if (lease.asked) {
    if (now.mono - lease.sent.mono >= options_.retry_us) send(org, lease, now);
  } else if (idle && org.reserved == 0 && (org.available() <= 0 || day_is_over)) {
    lease.active = lease.restate_agents;  // nothing is held: out of sight until it is used again
  } else {
    const auto low = static_cast<std::int64_t>(lease.rate * static_cast<double>(options_.horizon_us) / 4e6);
    const bool is_low = !org.hungry && !idle && org.available() < std::max(low, options_.events_min / 2) &&
                        now.mono - lease.sent.mono >= 100 * kMicrosPerMilli;
    if (is_low ||
        (org.hungry && org.available() > 0 && now.mono - lease.sent.mono >= 200 * kMicrosPerMilli) ||
        now.mono - lease.sent.mono >= options_.renew_us) {
      send(org, lease, now);
    }
  }
  if (lease.agents_asked && now.mono - lease.agents_sent >= options_.retry_us) {
    lease.agents_asked = false;
  }
  const bool touch = now.mono - lease.touched >= options_.touch_us && !idle;
  const bool restate = lease.restate_agents && now.mono - lease.restated >= options_.retry_us;
  if (touch || restate) show_agents(org, lease, now);
}

// Beside the questions, which would keep it waiting: after a loss of data every agent must be known again
// before learning ends.
void LeaseKeeper::show_agents(OrgLedger& org, Lease& lease, Now now) {
  AgentsRequest request;
  request.seq = ++lease.last_agents_seq;
  request.agents_max = org.policy == nullptr ? 0 : org.policy->agents_max;
  request.restate = lease.restate_agents;
  org.roster.list_active(now.wall, request.fingerprints, request.ages_s);
  lease.touched = lease.restated = now.mono;
  if (request.fingerprints.empty()) {
    lease.restate_agents = false;
    return;
  }
  if (request.restate) lease.restate_seq = request.seq;
  authority_.send(org, request);
}

void LeaseKeeper::on_stop(Now now) {
  stopping_ = true;
  if (!connected_) return;
  for (OrgLedger* org : active_) {
    if (org->available() > 0) send(*org, *org->lease, now);
  }
}

}  // namespace kavach::quota
