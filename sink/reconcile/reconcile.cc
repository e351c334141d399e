#include "sink/reconcile/reconcile.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "engine/money.h"
#include "sink/reconcile/event_list.h"
#include "sink/store/rollup.h"

namespace kavach::sink {
namespace {

// An event that the store should have and has not, with what it takes to find out why.
struct Suspect {
  std::uint32_t org;
  Uuid project_id;
  std::string key;
  WallMicros timestamp;
};

class Reconciliation {
 public:
  Reconciliation(const Places& places, const ReconcileOptions& options) : places_(places), options_(options) {
    report_.period = options.period;
    report_.has_topic = places.topic != nullptr;
    report_.has_store = places.store != nullptr;
  }

  Result<Report> run() {
    for (const auto step :
         {&Reconciliation::note_positions, &Reconciliation::read_store, &Reconciliation::read_letters,
          &Reconciliation::read_topic, &Reconciliation::read_journals, &Reconciliation::judge_suspects,
          &Reconciliation::compare_roll_ups}) {
      if (Status done = (this->*step)(); !done) return done.error();
    }
    finish();
    return std::move(report_);
  }

 private:
  using Kind = Finding::Kind;

  // The journals' before the topic's, and these before the store is read: a position promises what the next
  // place has from then on.
  Status note_positions() {
    for (JournalPlace* journal : places_.journals) {
      if (Status noted = journal->note_position(); !noted) return noted;
    }
    if (places_.topic == nullptr) return {};
    return places_.topic->note_position(options_.period);
  }

  Status read_store() {
    if (places_.store == nullptr) return {};
    const Period& period = options_.period;
    auto read = places_.store->scan_events(period.since, period.until, [this](const StoredEvent& event) {
      const std::uint32_t org = number_of(event.org_id);
      stored_.add(event.id, org);
      touch_hour(org, event.timestamp);
    });
    if (!read) return failure("cannot read the store's events: " + read.error().message);
    EventList doubled;
    stored_.sort([&doubled](const ListedEvent& event) { doubled.add(event.id, event.org); });
    read = places_.store->scan_doubled_keys(
        period.since, period.until, options_.dedup_window_us,
        [&](const StoredEvent& event) { doubled.add(event.id, number_of(event.org_id)); });
    if (!read) return failure("cannot look for doubled keys: " + read.error().message);
    doubled.sort();
    for (const ListedEvent& event : doubled.events()) {
      ++counts(event.org).doubled_in_store;
      note(Kind::kDoubledInStore, event.org, event.id);
    }
    for (const ListedEvent& event : stored_.events()) ++counts(event.org).in_store;
    return {};
  }

  Status read_letters() {
    if (places_.topic == nullptr) return {};
    auto unreadable = places_.topic->read_letters(options_.period, [this](const FoundEvent& event) {
      if (options_.period.holds(event.received_at)) letters_.add(event.id, number_of(event.org_id));
    });
    if (!unreadable) return unreadable.error();
    report_.unreadable_letters = *unreadable;
    letters_.sort();
    return {};
  }

  Status read_topic() {
    if (places_.topic == nullptr) return {};
    auto unreadable = places_.topic->read(options_.period, [this](const FoundEvent& event) {
      if (!options_.period.holds(event.received_at)) return;
      const std::uint32_t org = number_of(event.org_id);
      in_topic_.add(event.id, org);
      expect_in_store(event, org);
    });
    if (!unreadable) return unreadable.error();
    report_.unreadable_records = *unreadable;
    in_topic_.sort([this](const ListedEvent& event) { ++counts(event.org).repeated_in_topic; });
    for (const ListedEvent& event : in_topic_.events()) ++counts(event.org).in_topic;
    return {};
  }

  // What the topic has, it has been asked about.
  Status read_journals() {
    for (JournalPlace* journal : places_.journals) {
      Status read = journal->read(options_.period, [this](const FoundEvent& event) {
        if (!options_.period.holds(event.received_at)) return;
        const std::uint32_t org = number_of(event.org_id);
        ++counts(org).in_journal;
        if (places_.topic == nullptr) {
          expect_in_store(event, org);
        } else if (!in_topic_.has(event.id)) {
          expect_in_topic(event, org);
        }
      });
      if (!read) return read;
      report_.damaged_frames += journal->damaged_frames();
    }
    return {};
  }

  void expect_in_topic(const FoundEvent& event, std::uint32_t org) {
    if (!event.is_due) {
      on_its_way_.add(event.id, org);
    } else if (event.received_at < places_.topic->keeps_since()) {
      ++counts(org).past_retention;
    } else {
      ++counts(org).missing_in_topic;
      note(Kind::kMissingInTopic, org, event.id);
    }
  }

  void expect_in_store(const FoundEvent& event, std::uint32_t org) {
    if (places_.store == nullptr || stored_.has(event.id)) return;
    if (!event.is_due) {
      on_its_way_.add(event.id, org);
      return;
    }
    touch_hour(org, event.timestamp);
    if (suspects_.size() < kSuspectsMax) {
      suspects_.try_emplace(event.id,
                            Suspect{org, event.project_id, std::string(event.key), event.timestamp});
    } else if (!suspects_.contains(event.id)) {
      unchecked_.add(event.id, org);
    }
  }

  Status judge_suspects() {
    // A record may be there twice, the second time (a replay) where no writer has been yet.
    on_its_way_.sort();
    unchecked_.sort();
    for (const ListedEvent& event : on_its_way_.events()) ++counts(event.org).on_its_way;
    if (places_.store == nullptr) return {};
    for (const ListedEvent& letter : letters_.events()) {
      if (stored_.has(letter.id) || on_its_way_.has(letter.id)) continue;
      ++counts(letter.org).dead_letters;
      note(Kind::kDeadLetter, letter.org, letter.id);
    }
    for (const auto& [id, suspect] : suspects_) {
      if (on_its_way_.has(id) || letters_.has(id)) continue;
      if (Status judged = judge(id, suspect); !judged) return judged;
    }
    for (const ListedEvent& event : unchecked_.events()) {
      if (on_its_way_.has(event.id) || letters_.has(event.id)) continue;
      ++report_.unchecked;
      ++counts(event.org).missing_in_store;
      note(Kind::kMissingInStore, event.org, event.id);
    }
    return {};
  }

  Status judge(const Uuid& id, const Suspect& suspect) {
    // Its id may be of another time than its acceptance: then the scan did not see it.
    const auto is_there = places_.store->has_event(id);
    if (!is_there) return failure("cannot look for an event: " + is_there.error().message);
    if (*is_there) return {};
    if (options_.retained_since && suspect.timestamp < *options_.retained_since) {
      ++counts(suspect.org).past_retention;
      return {};
    }
    if (!suspect.key.empty()) {
      const auto has_other = places_.store->has_key(suspect.project_id, suspect.key, id);
      if (!has_other) return failure("cannot look for a key: " + has_other.error().message);
      if (*has_other) {
        ++counts(suspect.org).duplicates_dropped;
        return {};
      }
    }
    ++counts(suspect.org).missing_in_store;
    note(Kind::kMissingInStore, suspect.org, id);
    return {};
  }

  // Of the hours that events of the period touch by their own time, and of the period's own hours, where
  // roll-ups may be left of rows that are gone.
  Status compare_roll_ups() {
    if (places_.store == nullptr) return {};
    for (std::uint32_t org = 0; org < orgs_.size(); ++org) {
      const std::vector<HourRange> hours = hours_of(org);
      if (hours.empty()) continue;
      const auto sums = places_.store->sum_usage(orgs_[org].report.org_id, hours);
      if (!sums) return failure("cannot compare the roll-ups: " + sums.error().message);
      if (!sums->differ) continue;
      orgs_[org].report.roll_ups = *sums;
      ++report_.roll_ups_differ;
    }
    return {};
  }

  std::vector<HourRange> hours_of(std::uint32_t org) const {
    std::vector<HourRange> ranges;
    const auto add = [&ranges](std::int64_t from_s, std::int64_t to_s) {
      if (!ranges.empty() && from_s <= ranges.back().to_s) {
        ranges.back().to_s = std::max(ranges.back().to_s, to_s);
      } else {
        ranges.push_back({from_s, to_s});
      }
    };
    // Hours of which rows were dropped by their age cannot be compared.
    const std::int64_t first_s = options_.retained_since
                                     ? bucket_start(*options_.retained_since - 1, kHourS) + kHourS
                                     : std::numeric_limits<std::int64_t>::min();
    const HourRange own{std::max(first_s, bucket_start(options_.period.since, kHourS)),
                        bucket_start(options_.period.until - 1, kHourS) + kHourS};
    bool is_own_added = own.from_s >= own.to_s;
    for (const std::int64_t hour_s : orgs_[org].hours) {
      if (hour_s < first_s) continue;
      if (!is_own_added && own.from_s <= hour_s) {
        add(own.from_s, own.to_s);
        is_own_added = true;
      }
      add(hour_s, hour_s + kHourS);
    }
    if (!is_own_added) add(own.from_s, own.to_s);
    return ranges;
  }

  void finish() {
    std::sort(orgs_.begin(), orgs_.end(),
              [](const Org& a, const Org& b) { return a.report.org_id < b.report.org_id; });
    for (Org& org : orgs_) {
      report_.total.add(org.report.counts);
      report_.orgs.push_back(std::move(org.report));
    }
    std::stable_sort(report_.findings.begin(), report_.findings.end(),
                     [](const Finding& a, const Finding& b) { return a.kind < b.kind; });
  }

  void note(Kind kind, std::uint32_t org, const Uuid& id) {
    if (noted_[kind]++ < kFindingsMax) report_.findings.push_back({kind, orgs_[org].report.org_id, id});
  }

  void touch_hour(std::uint32_t org, WallMicros timestamp) {
    orgs_[org].hours.insert(bucket_start(timestamp, kHourS));
  }

  std::uint32_t number_of(const Uuid& org_id) {
    const auto [at, is_new] = numbers_.try_emplace(org_id, static_cast<std::uint32_t>(orgs_.size()));
    if (is_new) orgs_.push_back({{.org_id = org_id, .counts = {}}, {}});
    return at->second;
  }
  OrgCounts& counts(std::uint32_t org) { return orgs_[org].report.counts; }

  struct Org {
    OrgReport report;
    std::set<std::int64_t> hours;  // their starts in seconds
  };

  const Places& places_;
  const ReconcileOptions& options_;
  Report report_;
  std::unordered_map<Uuid, std::uint32_t, UuidHash> numbers_;  // places in orgs_
  std::vector<Org> orgs_;
  EventList stored_, letters_, in_topic_, on_its_way_;
  std::map<Uuid, Suspect> suspects_;
  EventList unchecked_;
  std::map<Kind, std::size_t> noted_;
};

}  // namespace

void OrgCounts::add(const OrgCounts& other) noexcept {
  in_journal += other.in_journal;
  in_topic += other.in_topic;
  in_store += other.in_store;
  on_its_way += other.on_its_way;
  duplicates_dropped += other.duplicates_dropped;
  dead_letters += other.dead_letters;
  past_retention += other.past_retention;
  repeated_in_topic += other.repeated_in_topic;
  missing_in_topic += other.missing_in_topic;
  missing_in_store += other.missing_in_store;
  doubled_in_store += other.doubled_in_store;
}

bool Report::is_clean() const noexcept {
  return total.missing() == 0 && total.doubled_in_store == 0 && roll_ups_differ == 0 && damaged_frames == 0;
}

Result<Report> reconcile(const Places& places, const ReconcileOptions& options) {
  return Reconciliation(places, options).run();
}

}  // namespace kavach::sink
