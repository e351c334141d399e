// JournalReader: a follower's view of the journal while it is written.
#include <fcntl.h>
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
      if (!read_header(file.path, header)) continue;
      if (header.first_seq > next_seq_) {
        if (!chosen) {
          // What was before has been released.
          next_seq_ = header.first_seq;
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
    if (fd_ < 0) return failure("journal: cannot open " + path);
    segment_ = *chosen;
    path_ = path;
    salt_ = frame_salt(segment_);
    offset_ = kSegmentHeaderBytes;
    return {};
  }

  static bool read_header(const std::string& path, SegmentHeader& header) {
    std::uint8_t bytes[kSegmentHeaderBytes];
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;  // recycled between the listing and now
    const bool whole = ::pread(fd, bytes, sizeof(bytes), 0) == static_cast<ssize_t>(sizeof(bytes));
    ::close(fd);
    std::uint32_t version = 0;
    return whole && read_segment_header(bytes, header, version) == HeaderState::kSound;
  }

  // The frame at offset_; steps behind it. The failure is for a frame that is not sound.
  Result<Entry> read_frame() {
    auto frame = read_frame_header(bytes_at(offset_, kFrameHeaderBytes), salt_);
    if (!frame) {
      // The window may have been read before the frame was written.
      window_.clear();
      frame = read_frame_header(bytes_at(offset_, kFrameHeaderBytes), salt_);
    }
    if (!frame || frame->seq > next_seq_) return damaged();
    const auto whole = bytes_at(offset_, kFrameHeaderBytes + std::size_t{frame->payload_bytes});
    if (whole.size() < kFrameHeaderBytes + std::size_t{frame->payload_bytes}) return damaged();
    const auto payload = whole.subspan(kFrameHeaderBytes, frame->payload_bytes);
    // Frames that were carried on already are stepped over unread.
    if (frame->seq == next_seq_ && crc32c(0, payload.data(), payload.size()) != frame->payload_crc)
      return damaged();
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
      window_.resize(std::max(size, kWindowBytes));
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

  void close_file() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
    window_.clear();
  }

  const std::string directory_;
  std::uint64_t next_seq_;
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
