#include "sink/journal/segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "engine/crc32c.h"

namespace kavach::sink {
namespace {

constexpr char kSegmentMagic[8] = {'K', 'V', 'J', 'S', 'E', 'G', '\r', '\n'};
constexpr std::uint32_t kFrameMagic = 0x314d5246;  // "FRM1"
constexpr std::string_view kSuffix = ".kvj";
constexpr std::size_t kIdDigits = 20;

// Little-endian on every machine that we build for (checked here, once).
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the journal's integers are little-endian");

template <typename T>
void put(std::uint8_t* out, std::size_t at, T value) noexcept {
  std::memcpy(out + at, &value, sizeof(value));
}
template <typename T>
T get(std::span<const std::uint8_t> bytes, std::size_t at) noexcept {
  T value{};
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

bool payload_is_sound(std::span<const std::uint8_t> bytes, std::uint64_t offset, const FrameHeader& frame) {
  if (frame.payload_bytes > bytes.size() - offset - kFrameHeaderBytes) return false;
  return crc32c(0, bytes.data() + offset + kFrameHeaderBytes, frame.payload_bytes) == frame.payload_crc;
}

// The next place from `offset` on where a sound frame with seq in [from, end) stands; bytes.size() if none.
std::uint64_t find_frame(std::span<const std::uint8_t> bytes, std::uint64_t offset, std::uint32_t salt,
                         std::uint64_t from, std::optional<std::uint64_t> end, std::uint64_t proves_synced) {
  for (; offset + kFrameHeaderBytes <= bytes.size(); offset += kFrameAlignment) {
    if (get<std::uint32_t>(bytes, offset) != kFrameMagic) continue;
    const auto frame = read_frame_header(bytes.subspan(offset), salt);
    if (!frame || frame->seq < from || (end && frame->seq >= *end)) continue;
    if (frame->synced_seq >= proves_synced && payload_is_sound(bytes, offset, *frame)) return offset;
  }
  return bytes.size();
}

std::uint64_t bytes_before_zeros(std::span<const std::uint8_t> bytes, std::uint64_t from) {
  const auto last = std::find_if(bytes.rbegin(), bytes.rend() - static_cast<std::ptrdiff_t>(from),
                                 [](std::uint8_t b) { return b != 0; });
  return static_cast<std::uint64_t>(bytes.rend() - last) - from;
}

}  // namespace

std::uint32_t frame_salt(const SegmentHeader& segment) noexcept {
  const std::uint32_t id = crc32c(0, segment.journal_id.bytes.data(), segment.journal_id.bytes.size());
  return crc32c(id, &segment.segment_id, sizeof(segment.segment_id));
}

void write_segment_header(const SegmentHeader& header, std::uint8_t* out) noexcept {
  std::memset(out, 0, kSegmentHeaderBytes);
  std::memcpy(out, kSegmentMagic, sizeof(kSegmentMagic));
  put(out, 8, kJournalVersion);
  std::memcpy(out + 16, header.journal_id.bytes.data(), 16);
  put(out, 32, header.segment_id);
  put(out, 40, header.first_seq);
  put(out, 60, crc32c(0, out, 60));
}

HeaderState read_segment_header(std::span<const std::uint8_t> bytes, SegmentHeader& header,
                                std::uint32_t& version) noexcept {
  if (bytes.size() < kSegmentHeaderBytes ||
      std::memcmp(bytes.data(), kSegmentMagic, sizeof(kSegmentMagic)) != 0) {
    return HeaderState::kNone;
  }
  // Before the checksum: a newer version may keep it elsewhere.
  version = get<std::uint32_t>(bytes, 8);
  if (version > kJournalVersion) return HeaderState::kNewer;
  if (get<std::uint32_t>(bytes, 60) != crc32c(0, bytes.data(), 60)) return HeaderState::kNone;
  std::memcpy(header.journal_id.bytes.data(), bytes.data() + 16, 16);
  header.segment_id = get<std::uint64_t>(bytes, 32);
  header.first_seq = get<std::uint64_t>(bytes, 40);
  return HeaderState::kSound;
}

bool is_unwritten(std::span<const std::uint8_t> bytes, std::uint64_t id_of_file) noexcept {
  SegmentHeader header;
  std::uint32_t version = 0;
  if (read_segment_header(bytes, header, version) == HeaderState::kSound)
    return header.segment_id != id_of_file;
  return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t b) { return b == 0; });
}

void write_frame_header(const FrameHeader& header, std::uint32_t salt, std::uint8_t* out) noexcept {
  put(out, 0, kFrameMagic);
  put(out, 4, header.payload_bytes);
  put(out, 8, header.seq);
  put(out, 16, header.synced_seq);
  put(out, 24, header.payload_crc);
  put(out, 28, crc32c(salt, out, 28));
}

std::optional<FrameHeader> read_frame_header(std::span<const std::uint8_t> bytes,
                                             std::uint32_t salt) noexcept {
  if (bytes.size() < kFrameHeaderBytes || get<std::uint32_t>(bytes, 0) != kFrameMagic) return std::nullopt;
  if (get<std::uint32_t>(bytes, 28) != crc32c(salt, bytes.data(), 28)) return std::nullopt;
  return FrameHeader{.payload_bytes = get<std::uint32_t>(bytes, 4),
                     .seq = get<std::uint64_t>(bytes, 8),
                     .synced_seq = get<std::uint64_t>(bytes, 16),
                     .payload_crc = get<std::uint32_t>(bytes, 24)};
}

std::string segment_path(const std::string& directory, std::uint64_t id) {
  std::string digits = std::to_string(id);
  return directory + "/" + std::string(kIdDigits - digits.size(), '0') + digits + std::string(kSuffix);
}

Result<std::vector<SegmentFile>> list_segments(const std::string& directory) {
  std::vector<SegmentFile> found;
  std::error_code error;
  if (!std::filesystem::exists(directory, error)) return found;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename().string();
    if (name.size() != kIdDigits + kSuffix.size() || !name.ends_with(kSuffix)) continue;
    std::uint64_t id = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + kIdDigits, id);
    if (parsed.ec != std::errc() || parsed.ptr != name.data() + kIdDigits) continue;
    found.push_back({entry.path().string(), id});
  }
  if (error)
    return passing_failure("cannot list the journal's directory " + directory + ": " + error.message());
  std::sort(found.begin(), found.end(),
            [](const SegmentFile& a, const SegmentFile& b) { return a.id < b.id; });
  return found;
}

Result<MappedFile> MappedFile::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return failure("cannot open " + path + ": " + error_text(errno));
  struct stat status {};
  void* bytes = nullptr;
  bool mapped = ::fstat(fd, &status) == 0;
  const auto size = static_cast<std::size_t>(status.st_size);
  if (mapped && size > 0) {
    bytes = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    mapped = bytes != MAP_FAILED;
  }
  const std::string reason = mapped ? "" : error_text(errno);
  ::close(fd);
  if (!mapped) return failure("cannot read " + path + ": " + reason);
  return MappedFile(static_cast<const std::uint8_t*>(bytes), size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : bytes_(std::exchange(other.bytes_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
  if (bytes_ != nullptr) ::munmap(const_cast<std::uint8_t*>(bytes_), size_);
}

SegmentScan scan_segment(std::span<const std::uint8_t> bytes, const SegmentHeader& header,
                         std::optional<std::uint64_t> end_seq, bool skip_damage, const FrameVisitor& each) {
  const std::uint32_t salt = frame_salt(header);
  SegmentScan scan;
  scan.next_seq = header.first_seq;
  scan.end = kSegmentHeaderBytes;
  std::uint64_t offset = kSegmentHeaderBytes;
  while (!end_seq || scan.next_seq < *end_seq) {
    std::optional<FrameHeader> frame;
    if (offset <= bytes.size()) frame = read_frame_header(bytes.subspan(offset), salt);
    if (frame && frame->seq == scan.next_seq && payload_is_sound(bytes, offset, *frame)) {
      each(*frame, bytes.subspan(offset + kFrameHeaderBytes, frame->payload_bytes), offset);
      offset += frame_file_bytes(frame->payload_bytes);
      ++scan.next_seq;
      ++scan.frames;
      scan.end = std::min<std::uint64_t>(offset, bytes.size());
      continue;
    }
    // Not sound. In a segment that has a successor, every frame up to there was acknowledged. In the last one
    // a frame was acknowledged if a later frame says so; if none does, it belongs to the group that was never
    // synced.
    const std::uint64_t from = std::min<std::uint64_t>(offset, bytes.size());
    const std::uint64_t proof =
        find_frame(bytes, from, salt, scan.next_seq, end_seq, end_seq ? 0 : scan.next_seq);
    if (!end_seq && proof == bytes.size()) {
      scan.torn_bytes = bytes_before_zeros(bytes, from);
      break;
    }
    if (!scan.damage) scan.damage = Damage{from, scan.next_seq};
    if (!skip_damage) break;
    const std::uint64_t next = find_frame(bytes, from, salt, scan.next_seq, end_seq, 0);
    if (next == bytes.size()) {
      // Nothing sound follows: the rest up to the next segment is lost.
      if (end_seq) {
        scan.skipped += *end_seq - scan.next_seq;
        scan.next_seq = *end_seq;
      }
      break;
    }
    const auto found = read_frame_header(bytes.subspan(next), salt);
    scan.skipped += found->seq - scan.next_seq;
    scan.next_seq = found->seq;
    offset = next;
  }
  return scan;
}

}  // namespace kavach::sink
