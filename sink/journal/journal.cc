#include "sink/journal/journal.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <limits>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "engine/check.h"
#include "engine/crc32c.h"
#include "engine/log.h"
#include "engine/mailbox.h"
#include "sink/journal/frame.h"
#include "sink/journal/segment.h"

namespace kavach::sink {
namespace {

// Frames that one shard has handed over and the journal has not taken yet.
constexpr std::size_t kLaneSlots = 8192;
// Buffers of one pwritev: Linux's IOV_MAX.
constexpr std::size_t kIovMax = 1024;
// Backlog is counted in steps of this many bytes, so that remembering the steps takes little memory.
constexpr std::uint64_t kBacklogStep = 64 << 10;
// Files of released segments that are kept to be written again: 1.2 to 1.35 times faster than new ones
// (limits.md 6).
constexpr std::size_t kSparesMax = 2;
// After a failure a new segment is tried at most this often.
constexpr MonoMicros kRetryEvery = 100 * kMicrosPerMilli;

constexpr std::array<std::uint8_t, kFrameAlignment> kPadding{};

bool sync_directory(const std::string& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool synced = ::fsync(fd) == 0;
  ::close(fd);
  return synced;
}

// Writes all of `parts`, in as many calls as it takes. Returns 0 or an errno.
int write_all(int fd, std::vector<iovec>& parts, std::uint64_t offset) {
  std::size_t first = 0;
  while (first < parts.size()) {
    const auto count = static_cast<int>(std::min(parts.size() - first, kIovMax));
    ssize_t written = ::pwritev(fd, &parts[first], count, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return written < 0 ? errno : ENOSPC;
    offset += static_cast<std::uint64_t>(written);
    while (written > 0) {
      iovec& part = parts[first];
      const auto step = std::min(static_cast<std::size_t>(written), part.iov_len);
      part.iov_base = static_cast<char*>(part.iov_base) + step;
      part.iov_len -= step;
      written -= static_cast<ssize_t>(step);
      if (part.iov_len == 0) ++first;
    }
    while (first < parts.size() && parts[first].iov_len == 0) ++first;
  }
  return 0;
}

// Makes durable what recovery found in the last segment and cuts what is torn. What is read back counts as
// acknowledged from now on (its keys are remembered), so the page cache that a killed process left is not
// enough. The last group is written anew: a sync of it that failed has left its pages clean, and another sync
// alone would say yes without writing them. Returns 0 or an errno.
int finish_segment(const std::string& path, std::span<const std::uint8_t> last_group, std::uint64_t end) {
  std::vector<std::uint8_t> bytes(last_group.begin(), last_group.end());
  std::vector<iovec> parts{{bytes.data(), bytes.size()}};
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return errno;
  int error = bytes.empty() ? 0 : write_all(fd, parts, end - bytes.size());
  if (error == 0 && (::ftruncate(fd, static_cast<off_t>(end)) != 0 || ::fsync(fd) != 0)) error = errno;
  ::close(fd);
  return error;
}

}  // namespace

void Frame::seal() noexcept {
  payload_crc = crc32c(0, payload.data(), payload.size());
}

void JournalMetrics::add_to(MetricsRegistry& registry) const {
  registry.add("kavach_journal_frames_total", "Frames made durable.", frames);
  registry.add("kavach_journal_events_total", "Events made durable.", events);
  registry.add("kavach_journal_bytes_total", "Bytes written to segments.", bytes);
  registry.add("kavach_journal_groups_total", "Group commits.", groups);
  registry.add("kavach_journal_failures_total", "Group commits that failed.", failures);
  registry.add("kavach_journal_commit_duration_seconds", "Write and sync of one group.", commit_duration);
}

class Journal::Impl {
 public:
  explicit Impl(const JournalOptions& options) : options_(options), dirty_(options.shards) {
    for (std::uint32_t i = 0; i < options.shards; ++i) lanes_.push_back(std::make_unique<Lane>());
    wake_fd_ = ::eventfd(0, EFD_CLOEXEC);
    KAVACH_CHECK(wake_fd_ >= 0, "no eventfd for the journal");
  }
  ~Impl() {
    stop();
    if (segment_fd_ >= 0) ::close(segment_fd_);
    if (lock_fd_ >= 0) ::close(lock_fd_);
    ::close(wake_fd_);
  }

  Status recover();
  void start(Deliver deliver);
  bool submit(std::uint32_t shard, Frame* frame) noexcept;
  void flush(std::uint32_t shard) noexcept;
  void stop();
  void wait_beyond(std::uint64_t seq, std::int64_t timeout_us);
  void interrupt();
  void release(std::uint64_t seq);
  bool saturated() const noexcept {
    return backlog_bytes() >= options_.backlog_bytes_max ||
           in_flight_bytes_.load(std::memory_order_relaxed) >= options_.in_flight_bytes_max;
  }
  std::uint64_t backlog_bytes() const noexcept {
    // Two counters of two writers; read in this order the difference is never negative.
    const std::uint64_t released = released_bytes_.load(std::memory_order_acquire);
    return durable_bytes_.load(std::memory_order_acquire) - released;
  }
  std::uint64_t backlog_events() const noexcept {
    const std::uint64_t released = released_events_.load(std::memory_order_acquire);
    return durable_events_.load(std::memory_order_acquire) - released;
  }

  JournalOptions options_;
  RecoveryReport report_;
  Uuid id_;
  JournalMetrics metrics_;
  std::atomic<std::uint64_t> durable_seq_{0};
  std::atomic<std::uint64_t> released_seq_{0};
  std::atomic<bool> healthy_{true};

 private:
  // Frames on their way from one shard.
  using Lane = SpscRing<Frame*, kLaneSlots>;
  struct Segment {
    std::uint64_t id;
    std::uint64_t first_seq;
    std::string path;
  };
  struct Step {
    std::uint64_t seq;    // everything up to here ...
    std::uint64_t bytes;  // ... are so many bytes since the start
    std::uint64_t events;
  };

  Status lock_directory();
  Status recover_segments(const std::vector<SegmentFile>& files);
  void account(std::uint64_t seq, std::uint64_t bytes, std::uint64_t events);
  void run();
  void gather();
  bool anything_waiting() const noexcept;
  void sleep();
  void write_group();
  void try_again();
  void note_success();
  int try_write();
  int open_segment(std::uint64_t bytes_needed);
  void abandon_segment();
  void deliver_group(bool durable);
  void wake_followers();

  // Constant after recovery.
  int lock_fd_ = -1;
  int wake_fd_ = -1;
  Deliver deliver_;
  std::thread thread_;
  std::vector<std::unique_ptr<Lane>> lanes_;

  // Each shard its own byte.
  std::vector<std::uint8_t> dirty_;

  // The journal's thread.
  int segment_fd_ = -1;
  SegmentHeader segment_;
  std::uint32_t salt_ = 0;
  std::uint64_t segment_offset_ = 0;
  std::uint64_t segment_capacity_ = 0;
  std::uint64_t next_segment_id_ = 1;
  std::uint64_t next_seq_ = 1;
  MonoMicros retry_at_ = 0;
  std::vector<Frame*> group_;
  std::uint32_t first_shard_ = 0;          // whose frames come first in group_
  std::vector<std::uint32_t> group_ends_;  // by shard, from the first: where its frames end in group_
  std::uint64_t group_bytes_ = 0;
  std::vector<std::uint8_t> headers_;
  std::vector<iovec> parts_;
  std::uint64_t last_step_bytes_ = 0;

  // Any thread.
  alignas(64) std::atomic<bool> sleeping_{false};
  std::atomic<bool> stopping_{false};
  std::atomic<std::uint64_t> in_flight_bytes_{0};
  std::atomic<std::uint64_t> durable_bytes_{0};
  std::atomic<std::uint64_t> durable_events_{0};
  std::atomic<std::uint64_t> released_bytes_{0};
  std::atomic<std::uint64_t> released_events_{0};
  std::atomic<std::uint32_t> followers_waiting_{0};

  std::mutex mutex_;  // guards what follows
  std::condition_variable advanced_;
  bool interrupted_ = false;
  std::deque<Segment> segments_;
  std::deque<Step> steps_;
  std::vector<std::string> spares_;
};

// --- recovery ----------------------------------------------------------------------------------------------

Status Journal::Impl::lock_directory() {
  std::error_code error;
  std::filesystem::create_directories(options_.directory, error);
  if (error)
    return failure("journal.directory: cannot create " + options_.directory + ": " + error.message());
  const std::filesystem::path parent = std::filesystem::absolute(options_.directory).parent_path();
  if (!sync_directory(parent)) {
    return failure("journal.directory: cannot sync " + parent.string() + ": " + error_text(errno));
  }
  const std::string path = options_.directory + "/lock";
  lock_fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_fd_ < 0) return failure("journal.directory: cannot open " + path + ": " + error_text(errno));
  if (::flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    return failure("journal.directory: " + options_.directory + " is in use by another kavachd");
  }
  return {};
}

Status Journal::Impl::recover() {
  if (Status locked = lock_directory(); !locked) return locked;
  auto files = list_segments(options_.directory);
  if (!files) return files.error();
  if (Status recovered = recover_segments(*files); !recovered) return recovered;
  if (id_.is_nil()) {
    fill_secret_random(id_.bytes.data(), id_.bytes.size());
    id_.bytes[6] = static_cast<std::uint8_t>((id_.bytes[6] & 0x0f) | 0x40);
    id_.bytes[8] = static_cast<std::uint8_t>((id_.bytes[8] & 0x3f) | 0x80);
  }
  // Spares of an earlier run have no use that a new file would not have.
  for (const auto& entry : std::filesystem::directory_iterator(options_.directory)) {
    if (entry.path().extension() == ".spare") ::unlink(entry.path().c_str());
  }
  report_.last_seq = next_seq_ - 1;
  durable_seq_ = report_.last_seq;
  released_seq_ = segments_.empty() ? report_.last_seq : segments_.front().first_seq - 1;
  return {};
}

Status Journal::Impl::recover_segments(const std::vector<SegmentFile>& files) {
  struct Found {
    SegmentFile file;
    SegmentHeader header;
  };
  std::vector<Found> sound;
  std::string never_written;
  for (std::size_t i = 0; i < files.size(); ++i) {
    next_segment_id_ = files[i].id + 1;
    auto mapped = MappedFile::open(files[i].path);
    if (!mapped) return mapped.error();
    SegmentHeader header;
    std::uint32_t version = 0;
    const HeaderState state = read_segment_header(mapped->bytes(), header, version);
    if (state == HeaderState::kNewer) {
      return failure(files[i].path + " has journal format " + std::to_string(version) +
                     ", this kavachd reads up to " + std::to_string(kJournalVersion) +
                     ": start the newer version, or move the file away");
    }
    if (state == HeaderState::kSound && header.segment_id == files[i].id) {
      sound.push_back({files[i], header});
      continue;
    }
    if (i + 1 == files.size() && is_unwritten(mapped->bytes(), files[i].id)) {
      never_written = files[i].path;
      continue;
    }
    if (options_.on_corruption == CorruptionPolicy::kStop) {
      return failure(files[i].path +
                     ": the header is damaged at offset 0; look with `kavachd journal inspect`, and set "
                     "journal.on_corruption = \"skip\" to go on without its frames");
    }
    // Kept for whoever wants to look into it, and out of the way: no follower would ever release it.
    const std::string aside = files[i].path + ".damaged";
    if (::rename(files[i].path.c_str(), aside.c_str()) != 0) {
      return failure("cannot rename " + files[i].path + " to " + aside + ": " + error_text(errno));
    }
    log::warning("journal: the header of {} is damaged; it is skipped and kept as {}", files[i].path, aside);
    ++report_.damaged_frames_skipped;
  }

  bool has_skipped_in_last = false;
  for (std::size_t i = 0; i < sound.size(); ++i) {
    const auto& [file, header] = sound[i];
    if (id_.is_nil()) id_ = header.journal_id;
    if (header.journal_id != id_) {
      return failure(file.path +
                     " belongs to another journal than the files before it: move one of them away");
    }
    if (i > 0 && header.first_seq != next_seq_) {
      if (options_.on_corruption == CorruptionPolicy::kStop) {
        return failure(file.path + " begins with frame " + std::to_string(header.first_seq) + ", expected " +
                       std::to_string(next_seq_) +
                       ": a segment is missing (journal.on_corruption = \"skip\" goes on)");
      }
      report_.damaged_frames_skipped += header.first_seq - std::min(header.first_seq, next_seq_);
    }
    auto mapped = MappedFile::open(file.path);
    if (!mapped) return mapped.error();
    const bool last = i + 1 == sound.size();
    const auto end_seq = last ? std::nullopt : std::optional<std::uint64_t>(sound[i + 1].header.first_seq);
    std::uint64_t last_group = kSegmentHeaderBytes;
    const SegmentScan scan = scan_segment(
        mapped->bytes(), header, end_seq, options_.on_corruption == CorruptionPolicy::kSkip,
        [&](const FrameHeader& frame, std::span<const std::uint8_t> payload, std::uint64_t offset) {
          account(frame.seq, frame_file_bytes(frame.payload_bytes), count_events(payload));
          if (frame.seq == frame.synced_seq + 1) last_group = offset;
        });
    if (scan.damage && options_.on_corruption == CorruptionPolicy::kStop) {
      const bool has_gap = !last && sound[i + 1].file.id != file.id + 1;
      return failure(
          file.path + ": acknowledged frame " + std::to_string(scan.damage->seq) + " is damaged at offset " +
          std::to_string(scan.damage->offset) +
          (has_gap ? ", and no segment is between it and " + sound[i + 1].file.path : "") +
          "; look with `kavachd journal inspect`, restore the file, or set journal.on_corruption = \"skip\" "
          "to go on without the damaged frames");
    }
    report_.frames += scan.frames;
    report_.torn_bytes_cut += scan.torn_bytes;
    report_.damaged_frames_skipped += scan.skipped;
    next_seq_ = scan.next_seq;
    if (last) {
      has_skipped_in_last = scan.damage.has_value();
      const auto group = mapped->bytes().subspan(last_group, scan.end - last_group);
      if (const int error = finish_segment(file.path, group, scan.end); error != 0)
        return failure("cannot sync " + file.path + ": " + error_text(error));
    }
    // Also one without a frame: its first_seq says that everything before it was acknowledged.
    segments_.push_back({file.id, header.first_seq, file.path});
  }
  if (!never_written.empty()) ::unlink(never_written.c_str());
  // The frames that said so may have been behind the cut. A segment that begins here says it from now on.
  if (has_skipped_in_last) {
    if (const int error = open_segment(0); error != 0)
      return failure("cannot begin a segment in " + options_.directory + ": " + error_text(error));
  }
  report_.segments = segments_.size();
  return {};
}

// Counts durable bytes and events. The journal's thread, or recovery.
void Journal::Impl::account(std::uint64_t seq, std::uint64_t bytes, std::uint64_t events) {
  const std::uint64_t total = durable_bytes_.load(std::memory_order_relaxed) + bytes;
  const std::uint64_t total_events = durable_events_.load(std::memory_order_relaxed) + events;
  durable_events_.store(total_events, std::memory_order_release);
  durable_bytes_.store(total, std::memory_order_release);
  if (total - last_step_bytes_ < kBacklogStep) return;
  last_step_bytes_ = total;
  const std::lock_guard lock(mutex_);
  steps_.push_back({seq, total, total_events});
}

// --- the shards' side --------------------------------------------------------------------------------------

bool Journal::Impl::submit(std::uint32_t shard, Frame* frame) noexcept {
  const std::uint64_t bytes = frame_file_bytes(frame->payload.size());
  if (stopping_.load(std::memory_order_relaxed) || saturated()) return false;
  in_flight_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  if (!lanes_[shard]->try_push(frame)) {
    in_flight_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
    return false;
  }
  dirty_[shard] = 1;
  return true;
}

void Journal::Impl::flush(std::uint32_t shard) noexcept {
  if (dirty_[shard] == 0) return;
  dirty_[shard] = 0;
  std::atomic_thread_fence(std::memory_order_seq_cst);  // pairs with sleep()
  if (!sleeping_.load(std::memory_order_relaxed) || !sleeping_.exchange(false, std::memory_order_acq_rel))
    return;
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_fd_, &one, sizeof(one));
}

// --- the journal's thread ----------------------------------------------------------------------------------

void Journal::Impl::start(Deliver deliver) {
  deliver_ = std::move(deliver);
  thread_ = std::thread([this] {
    ::pthread_setname_np(::pthread_self(), "journal");
    run();
  });
}

void Journal::Impl::stop() {
  stopping_.store(true, std::memory_order_release);
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_fd_, &one, sizeof(one));
  if (!thread_.joinable()) return;
  thread_.join();
  // What was preallocated, or is left of a recycled file, is not needed any more. Nothing depends on it.
  if (segment_fd_ >= 0) {
    [[maybe_unused]] const int cut = ::ftruncate(segment_fd_, static_cast<off_t>(segment_offset_));
  }
}

void Journal::Impl::run() {
  for (;;) {
    gather();
    if (!group_.empty()) {
      write_group();
      continue;
    }
    if (stopping_.load(std::memory_order_acquire) && !anything_waiting()) break;
    if (!healthy_.load(std::memory_order_relaxed)) try_again();
    sleep();
  }
}

// Without a group: a load balancer sends nothing to a node that is not ready, so nothing would ever show that
// the disk is well again.
void Journal::Impl::try_again() {
  if (system_clock().mono() < retry_at_) return;
  if (open_segment(0) == 0) return note_success();
  retry_at_ = system_clock().mono() + kRetryEvery;
}

bool Journal::Impl::anything_waiting() const noexcept {
  return std::any_of(lanes_.begin(), lanes_.end(), [](const auto& lane) { return !lane->empty(); });
}

void Journal::Impl::sleep() {
  sleeping_.store(true, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!anything_waiting() && !stopping_.load(std::memory_order_relaxed)) {
    const bool healthy = healthy_.load(std::memory_order_relaxed);
    pollfd wake{wake_fd_, POLLIN, 0};
    if (healthy || ::poll(&wake, 1, static_cast<int>(kRetryEvery / kMicrosPerMilli)) > 0) {
      std::uint64_t count = 0;
      [[maybe_unused]] const ssize_t n = ::read(wake_fd_, &count, sizeof(count));
    }
  }
  sleeping_.store(false, std::memory_order_relaxed);
}

// Takes what all shards have handed over, up to the bound of a group.
void Journal::Impl::gather() {
  group_.clear();
  group_ends_.clear();
  group_bytes_ = 0;
  // Each group begins with another shard, so that one that always fills a group cannot shut out the others.
  first_shard_ = (first_shard_ + 1) % options_.shards;
  for (std::uint32_t i = 0; i < options_.shards; ++i) {
    Lane* const lane = lanes_[(first_shard_ + i) % options_.shards].get();
    // One frame at a time, so that the bound is passed by one frame at most.
    while (group_bytes_ < options_.group_bytes_max && group_.size() < kLaneSlots) {
      const std::size_t taken = lane->drain(
          [this](Frame* frame) {
            group_.push_back(frame);
            group_bytes_ += frame_file_bytes(frame->payload.size());
          },
          1);
      if (taken == 0) break;
    }
    group_ends_.push_back(static_cast<std::uint32_t>(group_.size()));
  }
}

void Journal::Impl::write_group() {
  const MonoMicros started = system_clock().mono();
  int error = EIO;
  if (healthy_.load(std::memory_order_relaxed) || started >= retry_at_) {
    error = try_write();
  } else {
    error = -1;  // known to be broken, and not yet time to try again
  }
  metrics_.commit_duration.record(system_clock().mono() - started);
  if (error == 0) {
    for (const Frame* frame : group_) {
      account(frame->seq, frame_file_bytes(frame->payload.size()), frame->events);
      metrics_.events.add(frame->events);
    }
    metrics_.frames.add(group_.size());
    metrics_.bytes.add(group_bytes_);
    metrics_.groups.add();
    next_seq_ += group_.size();
    segment_offset_ += group_bytes_;
    durable_seq_.store(next_seq_ - 1, std::memory_order_seq_cst);  // pairs with wait_beyond()
    note_success();
    deliver_group(true);
    wake_followers();
    return;
  }
  metrics_.failures.add();
  if (error > 0) {
    abandon_segment();
    retry_at_ = system_clock().mono() + kRetryEvery;
    if (healthy_.exchange(false)) {
      log::error("journal: cannot write in {}: {}; batches are refused with 429 until it can",
                 options_.directory, error_text(error));
    }
  }
  deliver_group(false);
}

void Journal::Impl::note_success() {
  if (!healthy_.exchange(true)) log::info("journal: writes again");
}

// Returns 0 when the group is durable, else an errno.
int Journal::Impl::try_write() {
  if (segment_fd_ < 0 || segment_offset_ + group_bytes_ > segment_capacity_) {
    if (const int error = open_segment(group_bytes_); error != 0) return error;
  }
  headers_.resize(group_.size() * kFrameHeaderBytes);
  parts_.clear();
  const std::uint64_t synced = next_seq_ - 1;
  std::uint64_t seq = next_seq_;
  std::uint8_t* header = headers_.data();
  for (Frame* frame : group_) {
    frame->seq = seq;
    const auto payload_bytes = static_cast<std::uint32_t>(frame->payload.size());
    write_frame_header({payload_bytes, seq, synced, frame->payload_crc}, salt_, header);
    parts_.push_back({header, kFrameHeaderBytes});
    parts_.push_back({frame->payload.data(), payload_bytes});
    const std::size_t padding = frame_file_bytes(payload_bytes) - kFrameHeaderBytes - payload_bytes;
    if (padding > 0) parts_.push_back({const_cast<std::uint8_t*>(kPadding.data()), padding});
    header += kFrameHeaderBytes;
    ++seq;
  }
  if (const int error = write_all(segment_fd_, parts_, segment_offset_); error != 0) return error;
  return ::fdatasync(segment_fd_) == 0 ? 0 : errno;
}

int Journal::Impl::open_segment(std::uint64_t bytes_needed) {
  if (segment_fd_ >= 0) ::close(std::exchange(segment_fd_, -1));
  const std::uint64_t capacity = std::max(options_.segment_bytes, kSegmentHeaderBytes + bytes_needed);
  SegmentHeader header{id_, next_segment_id_, next_seq_};
  const std::string path = segment_path(options_.directory, header.segment_id);
  {
    const std::lock_guard lock(mutex_);
    if (!spares_.empty()) {
      // Its old frames do not pass for ours: the salt of their checksums is another. If somebody has deleted
      // it, a new file does as well.
      [[maybe_unused]] const int renamed = ::rename(spares_.back().c_str(), path.c_str());
      spares_.pop_back();
    }
  }
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return errno;
  std::array<std::uint8_t, kSegmentHeaderBytes> bytes{};
  write_segment_header(header, bytes.data());
  // Preallocated, so that a full disk shows here and not in the middle of a group; not every file system can.
  int error = ::posix_fallocate(fd, 0, static_cast<off_t>(capacity));
  if (error == EOPNOTSUPP || error == EINVAL) error = 0;
  // The name before the header: after a power failure in between, a recycled file with its old name and its
  // new header would look like damage.
  if (error == 0 && !sync_directory(options_.directory)) error = errno;
  parts_.assign({{bytes.data(), bytes.size()}});
  if (error == 0) error = write_all(fd, parts_, 0);
  if (error == 0 && ::fsync(fd) != 0) error = errno;
  if (error != 0) {
    ::close(fd);
    ::unlink(path.c_str());
    return error;
  }
  segment_fd_ = fd;
  segment_ = header;
  salt_ = frame_salt(header);
  segment_offset_ = kSegmentHeaderBytes;
  segment_capacity_ = capacity;
  ++next_segment_id_;
  const std::lock_guard lock(mutex_);
  segments_.push_back({header.segment_id, header.first_seq, path});
  return 0;
}

// After a failed write or sync nothing of the file's tail can be trusted, and a second sync would lie. The
// group's numbers go to the next segment, whose first_seq ends this one. The tail is cut as far as the disk
// still obeys.
void Journal::Impl::abandon_segment() {
  if (segment_fd_ < 0) return;
  if (::ftruncate(segment_fd_, static_cast<off_t>(segment_offset_)) == 0) {
    // So that the group does not come back with a power failure. Nothing is taken from it, whatever it says.
    [[maybe_unused]] const int synced = ::fdatasync(segment_fd_);
  }
  ::close(std::exchange(segment_fd_, -1));
  const std::lock_guard lock(mutex_);
  if (!segments_.empty() && segments_.back().first_seq == next_seq_) {
    ::unlink(segments_.back().path.c_str());  // nothing sound is in it
    segments_.pop_back();
  }
}

void Journal::Impl::deliver_group(bool durable) {
  std::uint64_t bytes = 0;
  for (Frame* frame : group_) {
    frame->receipt = durable ? Receipt::kJournal : Receipt::kFailed;
    bytes += frame_file_bytes(frame->payload.size());
  }
  in_flight_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  std::uint32_t begin = 0;
  for (std::uint32_t i = 0; i < group_ends_.size(); ++i) {
    const std::uint32_t shard = (first_shard_ + i) % options_.shards;
    const std::uint32_t end = group_ends_[i];
    if (end > begin) deliver_(shard, std::span<Frame* const>(group_.data() + begin, end - begin));
    begin = end;
  }
}

// --- followers ---------------------------------------------------------------------------------------------

void Journal::Impl::wake_followers() {
  if (followers_waiting_.load(std::memory_order_seq_cst) == 0) return;
  const std::lock_guard lock(mutex_);
  advanced_.notify_all();
}

void Journal::Impl::wait_beyond(std::uint64_t seq, std::int64_t timeout_us) {
  std::unique_lock lock(mutex_);
  followers_waiting_.fetch_add(1, std::memory_order_seq_cst);
  advanced_.wait_for(lock, std::chrono::microseconds(timeout_us),
                     [&] { return interrupted_ || durable_seq_.load(std::memory_order_seq_cst) > seq; });
  followers_waiting_.fetch_sub(1, std::memory_order_seq_cst);
  interrupted_ = false;
}

void Journal::Impl::interrupt() {
  const std::lock_guard lock(mutex_);
  interrupted_ = true;
  advanced_.notify_all();
}

void Journal::Impl::release(std::uint64_t seq) {
  std::unique_lock lock(mutex_);
  if (seq <= released_seq_.load(std::memory_order_relaxed)) return;
  released_seq_.store(seq, std::memory_order_release);
  std::uint64_t bytes = released_bytes_.load(std::memory_order_relaxed);
  std::uint64_t events = released_events_.load(std::memory_order_relaxed);
  while (!steps_.empty() && steps_.front().seq <= seq) {
    bytes = steps_.front().bytes;
    events = steps_.front().events;
    steps_.pop_front();
  }
  // Everything is carried on: what the last step did not cover is released too. Bytes are published before
  // the number of their frame, so the sum may hold a group that is just becoming durable; the next step sets
  // it right.
  if (steps_.empty()) {
    const std::uint64_t durable = durable_bytes_.load(std::memory_order_acquire);
    const std::uint64_t durable_events = durable_events_.load(std::memory_order_acquire);
    if (durable_seq_.load(std::memory_order_acquire) == seq) {
      bytes = std::max(bytes, durable);
      events = std::max(events, durable_events);
    }
  }
  released_bytes_.store(bytes, std::memory_order_release);
  released_events_.store(events, std::memory_order_release);
  // A segment ends where the next one begins; the last one is being written.
  std::vector<std::string> released;
  const std::size_t kept = options_.released_segments_kept;
  while (segments_.size() > kept + 1 && segments_[kept + 1].first_seq <= seq + 1) {
    released.push_back(std::move(segments_.front().path));
    segments_.pop_front();
  }
  std::size_t spares = spares_.size();
  // The journal's thread takes the same lock, and must not wait for the file system.
  lock.unlock();
  std::vector<std::string> recycled;
  for (const std::string& path : released) {
    std::string spare = path + ".spare";
    if (spares < kSparesMax && ::rename(path.c_str(), spare.c_str()) == 0) {
      recycled.push_back(std::move(spare));
      ++spares;
    } else {
      ::unlink(path.c_str());
    }
  }
  lock.lock();
  spares_.insert(spares_.end(), recycled.begin(), recycled.end());
}

// --- Journal -----------------------------------------------------------------------------------------------

Journal::Journal(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Journal::~Journal() = default;

Result<std::unique_ptr<Journal>> Journal::open(const JournalOptions& options) {
  auto impl = std::make_unique<Impl>(options);
  if (Status recovered = impl->recover(); !recovered) return recovered.error();
  return std::unique_ptr<Journal>(new Journal(std::move(impl)));
}

const RecoveryReport& Journal::recovery() const noexcept {
  return impl_->report_;
}
const Uuid& Journal::id() const noexcept {
  return impl_->id_;
}
void Journal::start(Deliver deliver) {
  impl_->start(std::move(deliver));
}
bool Journal::submit(std::uint32_t shard, Frame* frame) noexcept {
  return impl_->submit(shard, frame);
}
void Journal::flush(std::uint32_t shard) noexcept {
  impl_->flush(shard);
}
bool Journal::saturated() const noexcept {
  return impl_->saturated();
}
bool Journal::healthy() const noexcept {
  return impl_->healthy_.load(std::memory_order_relaxed);
}
void Journal::stop() {
  impl_->stop();
}
std::uint64_t Journal::durable_seq() const noexcept {
  return impl_->durable_seq_.load(std::memory_order_acquire);
}
void Journal::wait_beyond(std::uint64_t seq, std::int64_t timeout_us) {
  impl_->wait_beyond(seq, timeout_us);
}
void Journal::interrupt() {
  impl_->interrupt();
}
void Journal::release(std::uint64_t seq) {
  impl_->release(seq);
}
std::uint64_t Journal::released_seq() const noexcept {
  return impl_->released_seq_.load(std::memory_order_acquire);
}
std::uint64_t Journal::backlog_bytes() const noexcept {
  return impl_->backlog_bytes();
}
std::uint64_t Journal::backlog_events() const noexcept {
  return impl_->backlog_events();
}
const JournalMetrics& Journal::metrics() const noexcept {
  return impl_->metrics_;
}

}  // namespace kavach::sink
