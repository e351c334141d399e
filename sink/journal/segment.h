// Segment: one file of the journal, its format, and how a damaged or torn one is read (sink/JOURNAL.md).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/ids.h"
#include "engine/result.h"

namespace kavach::sink {

inline constexpr std::uint32_t kJournalVersion = 1;
inline constexpr std::size_t kSegmentHeaderBytes = 64;
inline constexpr std::size_t kFrameHeaderBytes = 32;
inline constexpr std::size_t kFrameAlignment = 8;

struct SegmentHeader {
  Uuid journal_id;
  std::uint64_t segment_id = 0;
  std::uint64_t first_seq = 0;
};

struct FrameHeader {
  std::uint32_t payload_bytes = 0;
  std::uint64_t seq = 0;
  std::uint64_t synced_seq = 0;  // every frame up to this one was durable when this one was written
  std::uint32_t payload_crc = 0;
};

// The checksum of a frame's header starts from this, so that a frame left in a recycled file does not pass
// for one of the new segment.
std::uint32_t frame_salt(const SegmentHeader& segment) noexcept;

void write_segment_header(const SegmentHeader& header, std::uint8_t* out) noexcept;  // kSegmentHeaderBytes
void write_frame_header(const FrameHeader& header, std::uint32_t salt, std::uint8_t* out) noexcept;

enum class HeaderState : std::uint8_t { kSound, kNone, kNewer };
HeaderState read_segment_header(std::span<const std::uint8_t> bytes, SegmentHeader& header,
                                std::uint32_t& version) noexcept;
// True for a file that was made, or recycled, and whose header never came to the disk. Then no frame did
// either, so only the last file of a journal can be like this.
bool is_unwritten(std::span<const std::uint8_t> bytes, std::uint64_t id_of_file) noexcept;
// Checks magic and checksum only; the payload is the caller's.
std::optional<FrameHeader> read_frame_header(std::span<const std::uint8_t> bytes,
                                             std::uint32_t salt) noexcept;

// Bytes of a frame in the file: header, payload, padding.
constexpr std::size_t frame_file_bytes(std::size_t payload_bytes) noexcept {
  return (kFrameHeaderBytes + payload_bytes + kFrameAlignment - 1) / kFrameAlignment * kFrameAlignment;
}

std::string segment_path(const std::string& directory, std::uint64_t id);

struct SegmentFile {
  std::string path;
  std::uint64_t id = 0;  // from the name
};
// The directory's segments by id. A missing directory has none.
Result<std::vector<SegmentFile>> list_segments(const std::string& directory);

// A whole file in memory, read-only.
class MappedFile {
 public:
  static Result<MappedFile> open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();
  std::span<const std::uint8_t> bytes() const noexcept { return {bytes_, size_}; }

 private:
  MappedFile(const std::uint8_t* bytes, std::size_t size) : bytes_(bytes), size_(size) {}
  const std::uint8_t* bytes_ = nullptr;
  std::size_t size_ = 0;
};

// What stands in a segment's bytes.
struct Damage {
  std::uint64_t offset = 0;
  std::uint64_t seq = 0;  // the frame that should stand there
};
struct SegmentScan {
  std::uint64_t next_seq = 0;  // behind the last sound frame
  std::uint64_t end = 0;       // offset behind the last sound frame
  std::uint64_t frames = 0;
  std::uint64_t torn_bytes = 0;  // of frames behind `end` that were never acknowledged
  std::uint64_t skipped = 0;     // damaged frames that were passed over
  std::optional<Damage> damage;  // the first one; without `skip_damage` the scan ends there
};
using FrameVisitor = std::function<void(const FrameHeader& header, std::span<const std::uint8_t> payload,
                                        std::uint64_t offset)>;

// Walks the frames from `first_seq` to `end_seq` (exclusive: the next segment's first; none for the last
// segment). Acknowledged frames that are missing are damage; anything else behind the last sound frame was
// never acknowledged. The argument is in sink/JOURNAL.md, Recovery.
SegmentScan scan_segment(std::span<const std::uint8_t> bytes, const SegmentHeader& header,
                         std::optional<std::uint64_t> end_seq, bool skip_damage, const FrameVisitor& each);

}  // namespace kavach::sink
