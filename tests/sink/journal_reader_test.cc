// JournalReader beside a writer: first segments made by hand, so that a test decides what stands in the file
// at which moment; then a live journal, released and recycled under its reader; then damage.
#include "sink/journal/journal.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "engine/crc32c.h"
#include "sink/journal/segment.h"
#include "tests/sink/journal_fixture.h"

namespace kavach::sink {
namespace {

using test::JournalFixture;
using test::numbers;
using test::payload_number;
using test::Payloads;
using test::RunningJournal;

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

// --- a live journal ----------------------------------------------------------------------------------------

std::unique_ptr<JournalReader> open_reader(const JournalOptions& options, std::uint64_t after) {
  auto reader = JournalReader::open(options.directory, after, options.on_corruption);
  REQUIRE(reader.has_value());
  return std::move(*reader);
}

// The number of the next frame, whose payload is as it was written; 0 for none, and the failure's text if it
// fails.
std::string next_number(JournalReader& reader, std::uint64_t up_to) {
  const auto entry = reader.next(up_to);
  if (!entry) return entry.error().message;
  if (!entry->has_value()) return "0";
  const auto& [seq, payload] = **entry;
  CHECK(test::Bytes(payload.begin(), payload.end()) == payload_number(seq, payload.size()));
  return std::to_string(seq);
}

TEST_CASE_FIXTURE(JournalFixture,
                  "a reader follows a live writer through segments that are recycled behind it") {
  constexpr std::uint64_t kFrames = 3000;
  options.segment_bytes = 2000;
  RunningJournal journal(options);
  std::thread follower([&] {
    const auto reader = open_reader(options, 0);
    for (std::uint64_t seq = 1; seq <= kFrames;) {
      journal->wait_beyond(seq - 1, kMicrosPerSecond);
      for (const std::uint64_t durable = journal->durable_seq(); seq <= durable; ++seq) {
        if (next_number(*reader, durable) != std::to_string(seq)) FAIL_CHECK("not frame ", seq);
      }
      journal->release(seq - 1);
    }
  });
  std::uint64_t written = 0;
  while (written < kFrames) {
    for (int i = 0; i < 10; ++i) REQUIRE(journal.submit(payload_number(++written)) != nullptr);
    journal.wait();
  }
  follower.join();
  CHECK(journal->backlog_bytes() == 0);
  CHECK(test::segment_paths(options.directory).size() <= 2);
}

TEST_CASE_FIXTURE(JournalFixture, "a reader begins behind its position, wherever in a segment that is") {
  options.segment_bytes = 1000;  // 11 frames
  RunningJournal journal(options);
  journal.write_numbers(1, 40);
  for (std::uint64_t after = 0; after <= 40; ++after) CHECK(read(40, after) == numbers(after + 1, 40));
}

TEST_CASE_FIXTURE(JournalFixture, "a reader gives nothing beyond the frame that it is told") {
  options.segment_bytes = 1000;
  RunningJournal journal(options);
  journal.write_numbers(1, 40);
  const auto reader = open_reader(options, 0);
  for (std::uint64_t up_to = 0; up_to <= 40; ++up_to) {
    if (up_to > 0) CHECK(next_number(*reader, up_to) == std::to_string(up_to));
    CHECK(next_number(*reader, up_to) == "0");
  }
}

TEST_CASE_FIXTURE(JournalFixture, "a reader that begins with what was released gets what is left") {
  options.segment_bytes = 1000;
  RunningJournal journal(options);
  journal.write_numbers(1, 40);
  journal->release(30);
  CHECK(read(40, 0) == numbers(23, 40));  // the segment of frame 31 begins there
}

TEST_CASE_FIXTURE(JournalFixture,
                  "a file that has its new name and still its old header does not mislead a reader") {
  test::SegmentBytes current(4, 31);
  current.add_group({45, 45, 45});
  test::write_file(segment(4), current.bytes);
  test::SegmentBytes earlier(1, 1);
  earlier.add_group({45, 45, 45});
  test::write_file(segment(5), earlier.bytes);
  CHECK(read(33, 31) == numbers(32, 33));
}

TEST_CASE_FIXTURE(JournalFixture, "frames larger than what is read at a time are read whole") {
  RunningJournal journal(options);
  for (std::uint64_t n = 1; n <= 4; ++n)
    REQUIRE(journal.write(payload_number(n, n % 2 == 0 ? 3 << 20 : 100)) == Receipt::kJournal);
  const auto reader = open_reader(options, 0);
  for (std::uint64_t n = 1; n <= 4; ++n) CHECK(next_number(*reader, 4) == std::to_string(n));
}

TEST_CASE_FIXTURE(JournalFixture, "an empty journal has nothing to read, and cannot have what is asked for") {
  test::open_journal(options);
  const auto reader = open_reader(options, 0);
  CHECK(next_number(*reader, 0) == "0");
  CHECK(next_number(*reader, 1) == "journal: no segment holds frame 1");
}

// --- damage ------------------------------------------------------------------------------------------------

// Frames 1 to 40 in segments of 11, of which the test damages some.
struct DamagedJournal : JournalFixture {
  DamagedJournal() {
    options.segment_bytes = 1000;
    RunningJournal(options).write_numbers(1, 40);
  }
  static std::size_t offset_of(std::uint64_t seq) { return kSegmentHeaderBytes + (seq - 1) % 11 * 80; }
  void flip(std::uint64_t seq, std::size_t byte) const {
    const std::string path = segment((seq - 1) / 11 + 1);
    test::Bytes bytes = test::read_file(path);
    test::flip_bit(bytes, (offset_of(seq) + byte) * 8);
    test::write_file(path, bytes);
  }
  Payloads skipping() const { return test::read_journal(options.directory, 40, 0, CorruptionPolicy::kSkip); }
};

TEST_CASE_FIXTURE(DamagedJournal,
                  "a reader stops at damage, says where, and does not get past it by asking again") {
  for (const std::size_t byte : {0UL, 4UL, 8UL, 31UL, kFrameHeaderBytes, kFrameHeaderBytes + 44}) {
    CAPTURE(byte);
    flip(25, byte);
    const auto reader = open_reader(options, 20);
    for (std::uint64_t seq = 21; seq <= 24; ++seq) CHECK(next_number(*reader, 40) == std::to_string(seq));
    const std::string told =
        segment(3) + ": acknowledged frame 25 is damaged at offset " + std::to_string(offset_of(25));
    CHECK(next_number(*reader, 40) == told);
    CHECK(next_number(*reader, 40) == told);
    flip(25, byte);
    CHECK(next_number(*reader, 40) == "25");  // restored
  }
}

TEST_CASE_FIXTURE(DamagedJournal,
                  "a reader that may skip passes damaged frames, also first and last ones of a segment") {
  Payloads expected = numbers(1, 40);
  for (const std::uint64_t seq : {1U, 11U, 12U, 20U, 21U, 33U, 40U}) {
    flip(seq, seq % 2 == 0 ? 8 : kFrameHeaderBytes + 8);
    expected.erase(seq);
  }
  CHECK(skipping() == expected);
}

TEST_CASE_FIXTURE(DamagedJournal,
                  "a reader that may skip passes a segment that was cut, and one that is gone") {
  Payloads expected = numbers(1, 40);
  std::filesystem::resize_file(segment(1), offset_of(5) + 10);
  for (std::uint64_t seq = 5; seq <= 11; ++seq) expected.erase(seq);
  std::filesystem::remove(segment(3));
  for (std::uint64_t seq = 23; seq <= 33; ++seq) expected.erase(seq);
  CHECK(skipping() == expected);

  const auto stopping = open_reader(options, 15);
  for (std::uint64_t seq = 16; seq <= 22; ++seq) CHECK(next_number(*stopping, 40) == std::to_string(seq));
  CHECK(next_number(*stopping, 40) != "34");
}

}  // namespace
}  // namespace kavach::sink
