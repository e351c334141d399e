// Reconciliation: are the events of a period everywhere where they have to be, and each of them once?
//
// Three places are compared: the journals of the nodes, the topic, and the store, whose roll-ups must be the
// sums of its events. While traffic runs there is no moment at which all three can be seen at once. So
//   - events that are accepted after the start are left out: `until` is not later than that;
//   - how far the journals' followers and the topic's writers came is noted before anything is read. What is
//   in
//     front of such a position must be in the next place by the time that is read; what is behind it and not
//     there is `on its way`, and no fault;
//   - the journal recycles what was carried on and the topic has a retention: what the store has and they
//   have
//     no more is no fault either.
//
// The store is read first and its ids are kept, then the topic and its ids, then the journals frame by frame.
// Memory: 20 bytes for each event of the store and of the topic in the period, three times that while the
// list grows, and again for those on their way: about 100 MB for a million events in Kafka mode, at the
// worst.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "engine/ids.h"
#include "engine/result.h"
#include "sink/store/audit.h"

namespace kavach::sink {

struct Period {
  WallMicros since = 0;
  WallMicros until = 0;
  bool holds(WallMicros t) const noexcept { return since <= t && t < until; }
};

// An event as a journal or a topic has it.
struct FoundEvent {
  Uuid id;
  Uuid org_id;
  Uuid project_id;
  std::string_view key = {};  // empty: none
  WallMicros received_at = 0;
  WallMicros timestamp = 0;
  bool is_due = true;  // the next place must have it by now
};
using FoundVisitor = std::function<void(const FoundEvent& event)>;

// One thread each; calls block. A failure ends the reconciliation: nothing is known then.
class JournalPlace {
 public:
  virtual ~JournalPlace() = default;
  // How far the follower came.
  virtual Status note_position() = 0;
  // Every event of the period that the journal still has.
  virtual Status read(const Period& period, const FoundVisitor& each) = 0;
  // Acknowledged frames that cannot be read and were not carried on yet. REQUIRES: it was read.
  virtual std::uint64_t damaged_frames() const = 0;
};

class TopicPlace {
 public:
  virtual ~TopicPlace() = default;
  // How far the writers came, then where the topic ends.
  virtual Status note_position(const Period& period) = 0;
  // Events that were accepted before this may have gone.
  virtual WallMicros keeps_since() const = 0;
  // Every event of the period up to the noted end, as often as it is there. Returns how many records of the
  // period cannot be decoded; if they still tell their event and organization, they were visited too.
  virtual Result<std::uint64_t> read(const Period& period, const FoundVisitor& each) = 0;
  // The same of the dead letters that are there now.
  virtual Result<std::uint64_t> read_letters(const Period& period, const FoundVisitor& each) = 0;
};

// Null: there is no such place.
struct Places {
  std::span<JournalPlace* const> journals;
  TopicPlace* topic = nullptr;
  StoreAudit* store = nullptr;
};

struct ReconcileOptions {
  Period period;
  std::int64_t dedup_window_us = 0;
  // Events with an earlier time of their own are dropped from the store; absent: none are.
  std::optional<WallMicros> retained_since = {};
};

// Numbers of events.
struct OrgCounts {
  std::uint64_t in_journal = 0, in_topic = 0, in_store = 0;  // each once; that they are there is no judgement
  // No faults.
  std::uint64_t on_its_way = 0;
  std::uint64_t duplicates_dropped = 0;  // not in the store, which has its key from another event
  std::uint64_t dead_letters = 0;        // not in the store, but set aside
  std::uint64_t past_retention = 0;      // gone by age
  std::uint64_t repeated_in_topic = 0;   // more records of an event: the store knows it by its id
  // Faults.
  std::uint64_t missing_in_topic = 0;
  std::uint64_t missing_in_store = 0;
  std::uint64_t doubled_in_store = 0;  // more rows of the same id or key

  std::uint64_t missing() const noexcept { return missing_in_topic + missing_in_store; }
  void add(const OrgCounts& other) noexcept;
};

struct OrgReport {
  Uuid org_id;
  OrgCounts counts;
  std::optional<UsageSums> roll_ups = {};  // if they are not what the events add up to
};

struct Finding {
  enum class Kind : std::uint8_t { kMissingInTopic, kMissingInStore, kDoubledInStore, kDeadLetter };
  Kind kind;
  Uuid org_id;
  Uuid event_id;
};

struct Report {
  Period period;
  bool has_topic = false, has_store = false;
  std::vector<OrgReport> orgs;  // by id
  OrgCounts total;
  std::uint64_t roll_ups_differ = 0;     // organizations
  std::uint64_t unreadable_records = 0;  // in the topic
  std::uint64_t unreadable_letters = 0;
  std::uint64_t damaged_frames = 0;
  // Missing events that were too many to be looked up one by one: some may be dropped duplicates.
  std::uint64_t unchecked = 0;
  std::vector<Finding> findings;  // the first few of each kind

  bool is_clean() const noexcept;
};
inline constexpr std::size_t kFindingsMax = 20;      // of each kind
inline constexpr std::size_t kSuspectsMax = 10'000;  // that are looked up one by one

Result<Report> reconcile(const Places& places, const ReconcileOptions& options);

// For a person: a table by organization, what was found, and a last line `clean` or `N missing, M doubled`.
std::string report_text(const Report& report);
// The same as one line of JSON.
std::string report_json(const Report& report);

}  // namespace kavach::sink
