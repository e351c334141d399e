#include "sink/reconcile/journal_directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <vector>

#include "sink/journal/frame.h"

namespace kavach::sink {
namespace {

// A descriptor with its file's name.
class OpenFile {
 public:
  explicit OpenFile(const std::string& path)
      : path_(path), fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), error_(errno) {}
  ~OpenFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  bool is_open() const noexcept { return fd_ >= 0; }
  bool is_gone() const noexcept { return fd_ < 0 && error_ == ENOENT; }
  // A file loses its name before anything of it is written over.
  bool has_its_name() const noexcept {
    struct stat own {
    }, named{};
    return ::fstat(fd_, &own) == 0 && ::stat(path_.c_str(), &named) == 0 && own.st_dev == named.st_dev &&
           own.st_ino == named.st_ino;
  }

  // Up to `size_max` bytes from the start.
  Result<std::vector<std::uint8_t>> read(std::size_t size_max) const {
    struct stat status {};
    if (::fstat(fd_, &status) != 0) return failed();
    std::vector<std::uint8_t> bytes(std::min(size_max, static_cast<std::size_t>(status.st_size)));
    std::size_t have = 0;
    while (have < bytes.size()) {
      const ssize_t n = ::pread(fd_, bytes.data() + have, bytes.size() - have, static_cast<off_t>(have));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return failed();
      if (n == 0) break;
      have += static_cast<std::size_t>(n);
    }
    bytes.resize(have);
    return bytes;
  }

 private:
  Failure failed() const { return failure(path_ + ": cannot be read: " + error_text(errno)); }

  const std::string path_;
  const int fd_;
  const int error_;
};

// Absent: the file has gone, or has no header (yet).
Result<std::optional<SegmentHeader>> header_of(const SegmentFile& segment) {
  const OpenFile file(segment.path);
  if (file.is_gone()) return std::optional<SegmentHeader>();
  if (!file.is_open()) return failure(segment.path + ": cannot be opened: " + error_text(errno));
  const auto bytes = file.read(kSegmentHeaderBytes);
  if (!bytes) return bytes.error();
  SegmentHeader header;
  std::uint32_t version = 0;
  const HeaderState state = read_segment_header(*bytes, header, version);
  if (state == HeaderState::kNewer) return failure(segment.path + ": written by a newer kavachd");
  if (state != HeaderState::kSound || header.segment_id != segment.id) return std::optional<SegmentHeader>();
  return std::optional(header);
}

// How often a segment is read when frames seem to be missing in it: of the newest one a frame may have been
// read that was written after its predecessors were looked for.
constexpr int kReadsMax = 3;

void skip_frame(const FrameHeader&, std::span<const std::uint8_t>, std::uint64_t) {}

// The segment's bytes; empty: it has gone.
Result<std::vector<std::uint8_t>> bytes_of(const SegmentFile& segment, const SegmentHeader& header,
                                           std::optional<std::uint64_t> end_seq) {
  for (int reads = 1;; ++reads) {
    const OpenFile file(segment.path);
    if (file.is_gone()) return std::vector<std::uint8_t>();
    if (!file.is_open()) return failure(segment.path + ": cannot be opened: " + error_text(errno));
    auto bytes = file.read(std::numeric_limits<std::size_t>::max());
    if (!bytes) return bytes;
    if (!file.has_its_name()) return std::vector<std::uint8_t>();
    if (reads == kReadsMax || !scan_segment(*bytes, header, end_seq, false, skip_frame).damage) return bytes;
  }
}

}  // namespace

Status JournalDirectory::note_position() {
  const auto segments = list_segments(directory_);
  if (!segments) return segments.error();
  for (const SegmentFile& segment : *segments) {
    const auto header = header_of(segment);
    if (!header) return header.error();
    if (!*header) continue;
    const auto position = find_position_((*header)->journal_id);
    if (!position) return position.error();
    position_ = *position;
    return {};
  }
  return {};
}

Status JournalDirectory::read(const Period& period, const FoundVisitor& each) {
  damaged_frames_ = 0;
  const auto segments = list_segments(directory_);
  if (!segments) return segments.error();
  std::optional<SegmentHeader> next;  // of the segment behind
  for (std::size_t i = segments->size(); i-- > 0;) {
    const SegmentFile& segment = (*segments)[i];
    const auto header = header_of(segment);
    if (!header) return header.error();
    const bool is_newest = i + 1 == segments->size();
    if (*header) {
      const std::optional<std::uint64_t> end_seq =
          next ? std::optional(next->first_seq) : std::optional<std::uint64_t>();
      if (Status read = read_segment(segment, **header, end_seq, period, each); !read) return read;
      next = **header;
    } else if (!is_newest && ::access(segment.path.c_str(), F_OK) == 0) {
      return failure(segment.path + ": the header is damaged (see kavachd journal inspect)");
    }
  }
  return {};
}

Status JournalDirectory::read_segment(const SegmentFile& segment, const SegmentHeader& header,
                                      std::optional<std::uint64_t> end_seq, const Period& period,
                                      const FoundVisitor& each) {
  const auto bytes = bytes_of(segment, header, end_seq);
  if (!bytes) return bytes.error();
  if (bytes->empty()) return {};
  Batch batch;
  std::string arena;
  std::optional<std::uint64_t> unknown_frame;
  std::uint64_t found_seq = header.first_seq - 1;  // up to here
  const auto lose = [&](std::uint64_t from, std::uint64_t behind) {
    if (behind > std::max(from, position_ + 1)) damaged_frames_ += behind - std::max(from, position_ + 1);
  };
  const SegmentScan scan =
      scan_segment(*bytes, header, end_seq, true,
                   [&](const FrameHeader& frame, std::span<const std::uint8_t> payload, std::uint64_t) {
                     lose(found_seq + 1, frame.seq);
                     found_seq = frame.seq;
                     if (!decode_batch(payload, batch, arena)) {
                       unknown_frame = frame.seq;
                       return;
                     }
                     if (!period.holds(batch.received_at)) return;
                     for (std::uint32_t i = 0; i < batch.events.size(); ++i) {
                       const Event& event = batch.events[i];
                       each({.id = event_id(batch.id, i),
                             .org_id = batch.org_id,
                             .project_id = batch.project_id,
                             .key = event.idempotency_key,
                             .received_at = batch.received_at,
                             .timestamp = event.timestamp,
                             .is_due = frame.seq <= position_});
                     }
                   });
  lose(found_seq + 1, scan.next_seq);
  if (unknown_frame) {
    return failure(segment.path + ": frame " + std::to_string(*unknown_frame) +
                   " cannot be decoded: written by a newer version?");
  }
  return {};
}

}  // namespace kavach::sink
