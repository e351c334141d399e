// JournalReader: a follower's view of the journal while it is written.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <optional>
#include <utility>

#include "engine/crc32c.h"
#include "engine/log.h"
#include "sink/journal/journal.h"
#include "sink/journal/segment.h"

namespace kavach::sink {
namespace {

// Read at a time: a few hundred batches.
constexpr std::size_t kWindowBytes = 1 << 20;
constexpr std::uint64_t kNoEnd = std::numeric_limits<std::uint64_t>::max();

}  // namespace

class JournalReader::Impl {
 public:
  Impl(std::string directory, std::uint64_t after_seq, CorruptionPolicy on_corruption)
      : directory_(std::move(directory)), next_seq_(after_seq + 1), on_corruption_(on_corruption) {}
  ~Impl() { close_file(); }

  Result<std::optional<Entry>> next(std::uint64_t up_to) {
    while (next_seq_ <= up_to) {
      if (fd_ < 0 || next_seq_ > known_to_) {
        if (Status located = locate(up_to); !located) return located.error();
        if (next_seq_ > up_to) break;
      }
      auto entry = read_frame();
      if (!entry) {
        if (Status passed = pass_damage(entry.error()); !passed) return passed.error();
        continue;
      }
      if (entry->seq < next_seq_) continue;
      next_seq_ = entry->seq + 1;
      has_begun_ = true;
      return std::optional<Entry>(*entry);
    }
    return std::optional<Entry>();
  }

 private:
  // Finds the segment of next_seq_. Every segment with frames up to `up_to` exists by now, so where this one
  // ends is known for these; what stands behind its end belongs to a group that failed.
  Status locate(std::uint64_t up_to) {
    auto files = list_segments(directory_);
    if (!files) return files.error();
    std::optional<SegmentHeader> chosen;
    std::string path;
    std::uint64_t end = kNoEnd;
    for (const SegmentFile& file : *files) {
      SegmentHeader header;
      const auto is_segment = read_header(file, header);
      if (!is_segment) return is_segment.error();
      if (!*is_segment) continue;
      if (header.first_seq > next_seq_) {
        if (!chosen) {
          if (Status jumped = jump_to(header.first_seq); !jumped) return jumped;
        } else {
          end = header.first_seq;
          break;
        }
      }
      chosen = header;
      path = file.path;
    }
    if (!chosen) return failure("journal: no segment holds frame " + std::to_string(next_seq_));
    known_to_ = std::min(up_to, end - 1);
    if (fd_ >= 0 && chosen->segment_id == segment_.segment_id) return {};
    close_file();
    fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) return cannot_open(path);
    segment_ = *chosen;
    path_ = path;
    salt_ = frame_salt(segment_);
    offset_ = kSegmentHeaderBytes;
    return {};
  }

  // A reader begins where the journal does: what was before has been released. Later there is no gap but
  // damage.
  Status jump_to(std::uint64_t first_seq) {
    if (has_begun_) {
      const std::string lost = "journal: no segment holds frames " + std::to_string(next_seq_) + " to " +
                               std::to_string(first_seq - 1);
      if (on_corruption_ == CorruptionPolicy::kStop) return failure(lost);
      log::warning("{}; they are skipped", lost);
    }
    next_seq_ = first_seq;
    return {};
  }

  static Failure cannot_open(const std::string& path) {
    return passing_failure("journal: cannot open " + path + ": " + error_text(errno));
  }

  // False for a file that is no segment, or no longer.
  static Result<bool> read_header(const SegmentFile& file, SegmentHeader& header) {
    std::uint8_t bytes[kSegmentHeaderBytes];
    const int fd = ::open(file.path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) return false;  // recycled between the listing and now
    if (fd < 0) return cannot_open(file.path);
    const bool whole = ::pread(fd, bytes, sizeof(bytes), 0) == static_cast<ssize_t>(sizeof(bytes));
    ::close(fd);
    std::uint32_t version = 0;
    // A file that is being recycled has its new name first and its new header later.
    return whole && read_segment_header(bytes, header, version) == HeaderState::kSound &&
           header.segment_id == file.id;
  }

  // The frame at offset_; steps behind it. The failure is for a frame that is not sound.
  Result<Entry> read_frame() {
    auto entry = sound_frame();
    if (!entry) {
      // The window may have been read before the frame was written, or while half of it was.
      window_.clear();
      entry = sound_frame();
    }
    if (!entry) return damaged();
    return *entry;
  }

  std::optional<Entry> sound_frame() {
    const auto frame = read_frame_header(bytes_at(offset_, kFrameHeaderBytes), salt_);
    if (!frame || frame->seq > next_seq_) return std::nullopt;
    const auto whole = bytes_at(offset_, kFrameHeaderBytes + std::size_t{frame->payload_bytes});
    if (whole.size() < kFrameHeaderBytes + std::size_t{frame->payload_bytes}) return std::nullopt;
    const auto payload = whole.subspan(kFrameHeaderBytes, frame->payload_bytes);
    // Frames that were carried on already are stepped over unread.
    if (frame->seq == next_seq_ && crc32c(0, payload.data(), payload.size()) != frame->payload_crc)
      return std::nullopt;
    offset_ += frame_file_bytes(frame->payload_bytes);
    return Entry{frame->seq, payload};
  }

  Failure damaged() const {
    return failure(path_ + ": acknowledged frame " + std::to_string(next_seq_) + " is damaged at offset " +
                   std::to_string(offset_));
  }

  Status pass_damage(const Failure& what) {
    if (on_corruption_ == CorruptionPolicy::kStop) return what;
    log::warning("journal: skipped: {}", what.message);
    for (std::uint64_t at = offset_ + kFrameAlignment;; at += kFrameAlignment) {
      const auto bytes = bytes_at(at, kFrameHeaderBytes);
      if (bytes.size() < kFrameHeaderBytes) break;
      const auto frame = read_frame_header(bytes, salt_);
      if (!frame || frame->seq < next_seq_ || frame->seq > known_to_) continue;
      offset_ = at;
      next_seq_ = frame->seq;
      return {};
    }
    next_seq_ = known_to_ + 1;
    return {};
  }

  // At least `size` bytes from `offset` where the file has them, else what it has.
  std::span<const std::uint8_t> bytes_at(std::uint64_t offset, std::size_t size) {
    const bool inside = offset >= window_offset_ && offset + size <= window_offset_ + window_.size();
    if (!inside) {
      // A frame's length is believed only as far as the file goes.
      window_.resize(std::min(std::max(size, kWindowBytes), file_bytes_from(offset)));
      std::size_t have = 0;
      while (have < window_.size()) {
        const ssize_t n =
            ::pread(fd_, window_.data() + have, window_.size() - have, static_cast<off_t>(offset + have));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        have += static_cast<std::size_t>(n);
      }
      window_.resize(have);
      window_offset_ = offset;
    }
    const std::size_t at = offset - window_offset_;
    return std::span<const std::uint8_t>(window_).subspan(at, std::min(size, window_.size() - at));
  }

  std::size_t file_bytes_from(std::uint64_t offset) const {
    struct stat status {};
    if (::fstat(fd_, &status) != 0 || static_cast<std::uint64_t>(status.st_size) < offset) return 0;
    return static_cast<std::uint64_t>(status.st_size) - offset;
  }

  void close_file() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
    window_.clear();
  }

  const std::string directory_;
  std::uint64_t next_seq_;
  bool has_begun_ = false;  // a frame was read
  const CorruptionPolicy on_corruption_;
  int fd_ = -1;
  SegmentHeader segment_;
  std::string path_;
  std::uint32_t salt_ = 0;
  std::uint64_t offset_ = 0;    // of the frame to read next
  std::uint64_t known_to_ = 0;  // frames up to this one are in the open segment
  std::vector<std::uint8_t> window_;
  std::uint64_t window_offset_ = 0;
};

JournalReader::JournalReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
JournalReader::~JournalReader() = default;

Result<std::unique_ptr<JournalReader>> JournalReader::open(const std::string& directory,
                                                           std::uint64_t after_seq,
                                                           CorruptionPolicy on_corruption) {
  return std::unique_ptr<JournalReader>(
      new JournalReader(std::make_unique<Impl>(directory, after_seq, on_corruption)));
}

Result<std::optional<JournalReader::Entry>> JournalReader::next(std::uint64_t up_to) {
  return impl_->next(up_to);
}

}  // namespace kavach::sink
