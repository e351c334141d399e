// Journal: the node's append-only, checksummed log of admitted batches, the source of all that follows.
//
// Shards hand over frames; one thread gathers the frames of all shards, writes and syncs them together (group
// commit) and gives each frame back with its receipt. Format, recovery and what happens on I/O errors:
// sink/JOURNAL.md.
//
// Threads: submit() and flush() on the shard named in the call; everything else from any thread unless said
// otherwise. The journal never blocks a shard.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/clock.h"
#include "engine/ids.h"
#include "engine/metrics.h"
#include "engine/result.h"

namespace kavach::sink {

// How durable a frame is when it comes back.
enum class Receipt : std::uint8_t {
  kJournal,  // written and synced on this node
  kFailed,   // not durable: the disk is full or broken; nothing of it will be read back by a follower
};

// One encoded batch on its way to the disk. Owned by the shard that submitted it and lent to the journal from
// submit() until the delivery; then reusable.
struct Frame {
  std::vector<std::uint8_t> payload;  // sink/journal/frame.h
  std::uint32_t payload_crc = 0;  // CRC32C of payload: set by seal() on the shard, so that the one journal
                                  // thread does not compute it
  std::uint32_t events = 0;
  void* owner = nullptr;  // the submitter's own, as is `next`: the journal does not touch them
  Frame* next = nullptr;
  // Set by the journal before delivery.
  Receipt receipt = Receipt::kFailed;
  std::uint64_t seq = 0;

  void seal() noexcept;  // computes payload_crc
};

enum class CorruptionPolicy : std::uint8_t { kStop, kSkip };

struct JournalOptions {
  std::string directory;
  std::uint32_t shards = 1;
  std::uint64_t segment_bytes = 64 << 20;
  std::uint64_t backlog_bytes_max = 1 << 30;
  std::uint64_t in_flight_bytes_max = 64 << 20;
  std::uint64_t group_bytes_max = 8 << 20;
  // Segments whose every frame is released and that are kept all the same, for who reads them at the next
  // start. They do not count as backlog.
  std::uint32_t released_segments_kept = 0;
  CorruptionPolicy on_corruption = CorruptionPolicy::kStop;
};

// What open() found and did.
struct RecoveryReport {
  std::uint64_t segments = 0;
  std::uint64_t frames = 0;
  std::uint64_t last_seq = 0;        // 0: none
  std::uint64_t torn_bytes_cut = 0;  // tail of an interrupted group commit, never acknowledged
  std::uint64_t damaged_frames_skipped = 0;
};

struct JournalMetrics {
  Counter frames, events, bytes, groups, failures;
  DurationHistogram commit_duration;  // write + sync of one group
  void add_to(MetricsRegistry& registry) const;
};

class Journal {
 public:
  // Called on the journal's thread with frames of one shard, in the order in which that shard submitted them.
  // Must not block.
  using Deliver = std::function<void(std::uint32_t shard, std::span<Frame* const> frames)>;

  // Opens or creates the journal, cuts a torn tail, refuses damage in the middle (kStop), a directory in use
  // by another process (a lock file), and files of a newer version.
  static Result<std::unique_ptr<Journal>> open(const JournalOptions& options);
  ~Journal();  // stop()

  const RecoveryReport& recovery() const noexcept;
  // Random, made with the directory: a follower's remembered position is only valid for this id.
  const Uuid& id() const noexcept;

  void start(Deliver deliver);

  // Hands over a sealed frame. False when the backlog or the bytes in flight have reached their bound: the
  // frame stays with the caller (backpressure).
  bool submit(std::uint32_t shard, Frame* frame) noexcept;
  // Wakes the journal's thread if it sleeps and something was submitted; once per turn of the shard's loop.
  void flush(std::uint32_t shard) noexcept;
  // True when submit() would refuse now.
  bool saturated() const noexcept;
  // False from a failed write until the next success.
  bool healthy() const noexcept;

  // Writes and syncs what was submitted, delivers it, then joins the thread. Later submits are refused.
  // REQUIRES: one caller. Idempotent.
  void stop();

  // The last durable frame; a follower reads up to here.
  std::uint64_t durable_seq() const noexcept;
  // Blocks a follower's thread until durable_seq() > seq, the timeout passed, or interrupt().
  void wait_beyond(std::uint64_t seq, std::int64_t timeout_us);
  void interrupt();
  // Every follower has carried on everything up to and including `seq`: segments before it are recycled.
  void release(std::uint64_t seq);
  std::uint64_t released_seq() const noexcept;
  // Bytes and events durable and not released: in steps of 64 KiB, and 0 when everything is.
  std::uint64_t backlog_bytes() const noexcept;
  std::uint64_t backlog_events() const noexcept;

  const JournalMetrics& metrics() const noexcept;

 private:
  class Impl;
  explicit Journal(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Reads durable frames in order; owned by one follower thread. The journal may be written meanwhile.
class JournalReader {
 public:
  struct Entry {
    std::uint64_t seq;
    std::span<const std::uint8_t> payload;  // valid until the next call of next()
  };
  // Starts behind `after_seq` (0: at the first frame there is).
  // Damage of acknowledged frames is a failure, or is skipped with a log line, as `on_corruption` says.
  static Result<std::unique_ptr<JournalReader>> open(const std::string& directory, std::uint64_t after_seq,
                                                     CorruptionPolicy on_corruption);
  ~JournalReader();
  // The next frame with seq <= up_to; nullopt when there is none yet.
  Result<std::optional<Entry>> next(std::uint64_t up_to);

 private:
  class Impl;
  explicit JournalReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// `kavachd journal inspect`: reads a directory without changing it (also of a running process).
struct SegmentSummary {
  std::string file;
  std::uint64_t id = 0, first_seq = 0, last_seq = 0, frames = 0, events = 0, bytes = 0;
  std::uint64_t torn_bytes = 0;  // behind the last frame: an interrupted group, or one that is being written
  std::string problem;           // empty, or what is wrong and at which offset
};
struct JournalSummary {
  Uuid journal_id;
  std::uint32_t version = 0;
  std::vector<SegmentSummary> segments;
};
Result<JournalSummary> inspect_journal(const std::string& directory);

}  // namespace kavach::sink
