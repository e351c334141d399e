// JournalReader beside a writer: segments are made by hand, so that a test decides what stands in the file at
// which moment.
#include "sink/journal/journal.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <string>
#include <vector>

#include "engine/crc32c.h"
#include "sink/journal/segment.h"
#include "tests/sink/store_fixture.h"

namespace kavach::sink {
namespace {

constexpr std::string_view kPayload = "what an encoded batch would be";

// A preallocated segment whose frames are written in parts.
class SegmentByHand {
 public:
  explicit SegmentByHand(const std::string& directory) {
    header_.segment_id = 1;
    header_.first_seq = 1;
    fd_ = ::open(segment_path(directory, 1).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(fd_ >= 0);
    REQUIRE(::ftruncate(fd_, 1 << 20) == 0);
    std::array<std::uint8_t, kSegmentHeaderBytes> bytes{};
    write_segment_header(header_, bytes.data());
    write(bytes.data(), bytes.size(), 0);
  }
  ~SegmentByHand() { ::close(fd_); }
  SegmentByHand(const SegmentByHand&) = delete;
  SegmentByHand& operator=(const SegmentByHand&) = delete;

  // Each frame has kPayload.
  void write_header(std::uint64_t seq) {
    const FrameHeader frame{.payload_bytes = static_cast<std::uint32_t>(kPayload.size()),
                            .seq = seq,
                            .synced_seq = seq - 1,
                            .payload_crc = crc32c(0, kPayload.data(), kPayload.size())};
    std::array<std::uint8_t, kFrameHeaderBytes> bytes{};
    write_frame_header(frame, frame_salt(header_), bytes.data());
    write(bytes.data(), bytes.size(), offset_of(seq));
  }
  void write_payload(std::uint64_t seq) {
    write(kPayload.data(), kPayload.size(), offset_of(seq) + kFrameHeaderBytes);
  }

 private:
  static std::size_t offset_of(std::uint64_t seq) {
    return kSegmentHeaderBytes + (seq - 1) * frame_file_bytes(kPayload.size());
  }
  void write(const void* bytes, std::size_t size, std::size_t offset) const {
    REQUIRE(::pwrite(fd_, bytes, size, static_cast<off_t>(offset)) == static_cast<ssize_t>(size));
  }

  SegmentHeader header_;
  int fd_ = -1;
};

std::string read(JournalReader& reader, std::uint64_t up_to) {
  const auto entry = reader.next(up_to);
  if (!entry) return entry.error().message;
  if (!entry->has_value()) return "none";
  return std::to_string((*entry)->seq) + " " +
         std::string((*entry)->payload.begin(), (*entry)->payload.end());
}

TEST_CASE("a frame that was half written when the reader read ahead is read whole once it is durable") {
  const test::TempFolder folder;
  SegmentByHand segment(folder.path().string());
  segment.write_header(1);
  segment.write_payload(1);
  segment.write_header(2);
  auto reader = JournalReader::open(folder.path().string(), 0, CorruptionPolicy::kStop);
  REQUIRE(reader.has_value());
  CHECK(read(**reader, 1) == "1 " + std::string(kPayload));  // what it read ahead has half of frame 2

  segment.write_payload(2);
  CHECK(read(**reader, 2) == "2 " + std::string(kPayload));
}

TEST_CASE("a frame that was not there when the reader read ahead is read once it is durable") {
  const test::TempFolder folder;
  SegmentByHand segment(folder.path().string());
  segment.write_header(1);
  segment.write_payload(1);
  auto reader = JournalReader::open(folder.path().string(), 0, CorruptionPolicy::kStop);
  REQUIRE(reader.has_value());
  CHECK(read(**reader, 1) == "1 " + std::string(kPayload));
  CHECK(read(**reader, 1) == "none");

  segment.write_header(2);
  segment.write_payload(2);
  CHECK(read(**reader, 2) == "2 " + std::string(kPayload));
}

}  // namespace
}  // namespace kavach::sink
