#include "quota/lease_keeper.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/money.h"

namespace kavach::quota {

struct Lease {
  // The question under way. There is one at a time.
  std::uint64_t seq = 0;
  bool asked = false;
  Now sent;
  std::int64_t need_sent = 0;
  std::int64_t need_min_sent = 0;
  std::int64_t burst_sent = 0;
  // Of batches that wait and are not covered by the question under way.
  std::int64_t need = 0;
  std::int64_t need_min = 0;  // of the smallest of them, what it needs in all
  std::int64_t burst_need = 0;

  MonoMicros answer_of = 0;  // when the question was sent that was answered last; 0: none holds any more

  // The answer that batches are being decided with: what it did not grant is not there.
  bool resuming = false;
  bool short_of_events = false;
  bool short_of_burst = false;

  // Rate of spending: events per second, smoothed over about the horizon.
  std::int64_t used_seen = 0;
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
  MonoMicros shown = 0;         // when the roster was last sent
  bool restate_agents = false;  // until it was heard
  std::uint64_t restate_seq = 0;

  bool unstated = false;        // on this connection
  std::int64_t cost_sent = 0;   // of the node's use in total, with the question under way
  std::int64_t cost_heard = 0;  // by the authority

  bool awaited = false;
};

void LeaseKeeperMetrics::add_to(MetricsRegistry& registry, std::uint32_t shard) const {
  const MetricsRegistry::Labels labels{{"shard", std::to_string(shard)}};
  registry.add("kavach_lease_renewals_total", "Questions to the fleet's authority.", renewals, labels);
  registry.add("kavach_lease_timeouts_total", "Times that batches waited in vain for the authority.",
               timeouts, labels);
  registry.add("kavach_lease_restated_total", "Leases that were told anew to a new connection.", restated,
               labels);
  registry.add("kavach_lease_older_boots_total", "Starts whose number was behind an earlier one's.",
               older_boots, labels);
  registry.add("kavach_lease_held_events", "Events that are leased and not spent.", held_events, labels);
  registry.add("kavach_budget_unmirrored_nanodollars",
               "Use that the fleet may not have heard of: what this node may add to a budget's overshoot.",
               unmirrored_cost, labels);
  registry.add("kavach_lease_degraded_since_timestamp_seconds",
               "When the authority ceased to answer; 0 while it answers.", degraded_since, labels);
}

LeaseKeeper::LeaseKeeper(const Options& options, Authority& authority,
                         std::function<void(OrgLedger&, Now)> resume)
    : options_(options), authority_(authority), resume_(std::move(resume)) {}

Lease& LeaseKeeper::lease_of(OrgLedger& org) {
  if (org.lease == nullptr) {
    org.lease = std::make_shared<Lease>();
    known_.push_back(&org);
  }
  Lease& lease = *org.lease;
  if (!org.looked_after) {
    org.looked_after = true;
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
  if (is_known_short(org, lease, ask, now)) return Answer::kDone;
  if (ask.events_need > 0 && (lease.need_min == 0 || ask.events_batch < lease.need_min))
    lease.need_min = ask.events_batch;
  lease.need = saturating_add(lease.need, ask.events_need);
  lease.burst_need = saturating_add(lease.burst_need, ask.burst_need);
  if (!lease.asked && !lease.resuming) send(org, lease, now);
  await(org, lease);
  return Answer::kPending;
}

// The last answer was that neither the events nor the burst that are asked for are to be had, and nothing of
// the day is held where it may come back from.
bool LeaseKeeper::is_known_short(const OrgLedger& org, const Lease& lease, const Ask& ask,
                                 Now now) const noexcept {
  if (lease.answer_of == 0 || now.mono - lease.answer_of >= options_.final_us) return false;
  if (now.mono >= org.day_ends || (org.burst_units > 0 && now.mono >= org.burst_expires)) return false;
  const bool no_events =
      org.charged >= org.policy->events_per_day && org.held_elsewhere == 0 && !org.learning;
  const std::int64_t burst_left = saturating_add(org.burst_left, org.burst_units + org.burst_unused);
  return (ask.events_need == 0 || no_events) && (ask.burst_need == 0 || ask.burst_need > burst_left);
}

void LeaseKeeper::await(OrgLedger& org, Lease& lease) {
  if (std::exchange(lease.awaited, true)) return;
  awaited_.push_back(&org);
}

MonoMicros LeaseKeeper::next_deadline(Now now) const noexcept {
  if (awaited_.empty()) return 0;
  MonoMicros first = now.mono + options_.reply_us;
  for (const OrgLedger* org : awaited_) {
    const Lease& lease = *org->lease;
    if (lease.asked) first = std::min(first, lease.sent.mono + options_.reply_us);
    if (lease.agents_asked) first = std::min(first, lease.agents_sent + options_.reply_us);
  }
  return first;
}

void LeaseKeeper::on_deadline(Now now) {
  const std::vector<OrgLedger*> awaited = std::exchange(awaited_, {});
  for (OrgLedger* org : awaited) {
    org->lease->awaited = false;
    give_up_waiting(*org, *org->lease, now);
    if (!org->waiting.empty()) await(*org, *org->lease);
  }
}

void LeaseKeeper::give_up_waiting(OrgLedger& org, Lease& lease, Now now) {
  const bool is_late_now = (lease.asked && is_late(lease.sent.mono, now)) ||
                           (lease.agents_asked && is_late(lease.agents_sent, now));
  if (!is_late_now) return;
  note_degraded(true, now);
  if (org.waiting.empty()) return;
  metrics_.timeouts.add();
  lease.need = lease.need_min = lease.burst_need = 0;
  resume(org, lease, now);
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
  // Where somebody goes short, what is too little for a batch here may be what is missing there.
  const bool is_too_little = org.hungry && lease.need > 0;
  const std::int64_t give_up = idle || is_too_little ? org.available()
                               : org.hungry          ? org.available() - target / 2
                                                     : org.available() - 2 * target;
  if (give_up > 0) {
    org.ceiling -= give_up;
    if (is_too_little) lease.need = saturating_add(lease.need, give_up);
  }
  // Where nothing is enforced more may be spent than was leased: it counts as held, and then as spent.
  org.ceiling = std::max(org.ceiling, org.spent + org.reserved);
  request.keep = org.ceiling - org.spent;
  request.need = std::exchange(lease.need, 0);
  request.need_min = std::exchange(lease.need_min, 0);
  request.limit = org.policy == nullptr ? 0 : org.policy->events_per_day;
  request.want = request.need;
  if (request.limit != kUnlimited) {
    request.want = saturating_add(
        request.want, std::max<std::int64_t>(0, wish - std::max<std::int64_t>(0, org.available())));
  }
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
  lease.cost_sent = org.own[static_cast<std::size_t>(BudgetPeriod::kTotal)].cost;
  lease.unstated = false;
  lease.asked = true;
  lease.sent = now;
  lease.need_sent = request.need;
  lease.need_min_sent = request.need_min;
  lease.burst_sent = request.burst_want;
  metrics_.renewals.add();
  authority_.send(org, request);
}

void LeaseKeeper::send_again(OrgLedger& org, Lease& lease, Now now) {
  lease.need = saturating_add(lease.need, lease.need_sent);
  if (lease.need_min == 0 || (lease.need_min_sent > 0 && lease.need_min_sent < lease.need_min))
    lease.need_min = lease.need_min_sent;
  lease.burst_need = saturating_add(lease.burst_need, lease.burst_sent);
  send(org, lease, now);
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
      return send_again(org, lease, now);
    case RenewReply::Status::kOlderBoot:
      // The clock that boots are numbered by was set back.
      metrics_.older_boots.add();
      options_.boot = reply.boot + 1;
      return send_again(org, lease, now);
    case RenewReply::Status::kRepeated:
      return send_again(org, lease, now);
  }
  lease.cost_heard = lease.cost_sent;
  lease.answer_of = lease.sent.mono;
  const std::int64_t before = org.ceiling;
  take_over(org, reply, lease.sent);
  if (reply.burst_granted > 0) org.burst_expires = lease.sent.mono + options_.burst_lease_us;
  lease.short_of_events = lease.need_sent > 0 && org.ceiling - before < lease.need_sent;
  lease.short_of_burst = lease.burst_sent > 0 && reply.burst_granted < lease.burst_sent;
  for (std::size_t i = 0; i < kBudgetPeriods; ++i) {
    if (reply.periods[i] == org.periods[i]) org.others_cost[i] = reply.others_usage[i].cost;
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
  await(org, lease);
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

void LeaseKeeper::on_start(Now now) {
  note_degraded(true, now);
}

void LeaseKeeper::on_connected(Now now) {
  connected_ = true;
  note_degraded(false, now);
  on_forgotten(now);
}

void LeaseKeeper::on_forgotten(Now now) {
  for (OrgLedger* org : known_) {
    Lease& lease = lease_of(*org);
    lease.unstated = lease.restate_agents = true;
    lease.answer_of = 0;
  }
  next_look_ = 0;
  held_so_far_ = unmirrored_so_far_ = 0;
  on_tick(now);
}

void LeaseKeeper::on_disconnected(Now now) {
  connected_ = false;
  note_degraded(true, now);
  for (OrgLedger* org : active_) {
    Lease& lease = *org->lease;
    lease.asked = lease.agents_asked = false;
    lease.need = lease.need_min = lease.burst_need = 0;
    lease.agents_wanted.clear();
  }
  // Nobody asks anything while there is no connection.
  for (OrgLedger* org : std::exchange(awaited_, {})) {
    org->lease->awaited = false;
    resume(*org, *org->lease, now);
  }
}

void LeaseKeeper::note_degraded(bool degraded, Now now) {
  const bool was = metrics_.degraded_since.value() != 0;
  if (degraded == was) return;
  metrics_.degraded_since.set(degraded ? now.wall / kMicrosPerSecond : 0);
}

// A tenth of them, so that a hundred thousand organizations in use are no pause of the shard; few are all
// looked after each time.
void LeaseKeeper::on_tick(Now now) {
  constexpr std::size_t kLooksMin = 1'000;
  const std::size_t looks = std::min(active_.size(), std::max(kLooksMin, active_.size() / 10 + 1));
  if (active_.empty()) metrics_.held_events.set(0);
  for (std::size_t i = 0; i < looks && next_look_ < active_.size(); ++i) {
    OrgLedger& org = *active_[next_look_];
    Lease& lease = *org.lease;
    look_after(org, lease, now);  // may add to active_
    held_so_far_ = saturating_add(held_so_far_, std::max<std::int64_t>(0, org.available()));
    const bool has_budgets = org.policy != nullptr && !org.policy->budgets.empty();
    const std::int64_t cost = org.own[static_cast<std::size_t>(BudgetPeriod::kTotal)].cost;
    if (has_budgets)
      unmirrored_so_far_ =
          saturating_add(unmirrored_so_far_, std::max<std::int64_t>(0, cost - lease.cost_heard));
    if (org.looked_after) {
      ++next_look_;
    } else {
      active_[next_look_] = active_.back();
      active_.pop_back();
    }
  }
  if (next_look_ < active_.size()) return;
  next_look_ = 0;
  metrics_.held_events.set(std::exchange(held_so_far_, 0));
  metrics_.unmirrored_cost.set(std::exchange(unmirrored_so_far_, 0));
}

void LeaseKeeper::look_after(OrgLedger& org, Lease& lease, Now now) {
  // Also an organization that has no limit to ask for is in use.
  const std::int64_t used = org.spent + org.reserved;
  if (std::exchange(lease.used_seen, used) != used || org.reserved > 0) lease.last_use = now.mono;
  // The rate, from what was spent since the last look.
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
  give_up_waiting(org, lease, now);
  if (!connected_) return;
  if (lease.unstated) {
    metrics_.restated.add();
    send(org, lease, now);
    show_agents(org, lease, now);
  }
  const bool day_is_over = now.mono >= org.day_ends;
  const bool idle = now.mono - lease.last_use >= options_.idle_us;
  if (lease.asked) {
    if (now.mono - lease.sent.mono >= options_.retry_us) send(org, lease, now);
  } else if (idle && org.reserved == 0 && (org.available() <= 0 || day_is_over) &&
             lease.sent.mono > lease.last_use && !lease.restate_agents) {
    org.looked_after = false;  // nothing is held and all is told: out of sight until it is used again
  } else {
    const auto low = static_cast<std::int64_t>(lease.rate * static_cast<double>(options_.horizon_us) / 4e6);
    const bool has_limit = org.policy != nullptr && org.policy->events_per_day != kUnlimited;
    const bool is_low = has_limit && !org.hungry && !idle &&
                        org.available() < std::max(low, options_.events_min / 2) &&
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
  const bool touch = now.mono - lease.shown >= options_.touch_us && !idle;
  const bool restate = lease.restate_agents && now.mono - lease.shown >= options_.retry_us;
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
  lease.shown = now.mono;
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
