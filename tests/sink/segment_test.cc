// Segments: what a scan makes of a file that was cut, damaged or used before, at every byte and every bit.
#include "sink/journal/segment.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <optional>
#include <set>
#include <string>

#include "tests/sink/journal_fixture.h"

namespace kavach::sink {
namespace {

using test::Bytes;
using test::flip_bit;
using test::payload_number;
using test::SegmentBytes;

struct Scanned {
  SegmentScan scan;
  std::vector<std::uint64_t> seqs;
};

Scanned scanned(const SegmentBytes& segment, const Bytes& bytes, bool skip_damage = false,
                std::optional<std::uint64_t> end_seq = std::nullopt) {
  Scanned result;
  result.scan = scan_segment(
      bytes, segment.header, end_seq, skip_damage,
      [&](const FrameHeader& frame, std::span<const std::uint8_t> payload, std::uint64_t) {
        result.seqs.push_back(frame.seq);
        CHECK(Bytes(payload.begin(), payload.end()) == payload_number(frame.seq, payload.size()));
      });
  return result;
}

std::vector<std::uint64_t> range(std::uint64_t first, std::uint64_t last) {
  std::vector<std::uint64_t> seqs;
  for (std::uint64_t seq = first; seq <= last; ++seq) seqs.push_back(seq);
  return seqs;
}

// Frames 1 to 3 of three groups, then 4 to 6 of one that may be torn.
struct Groups {
  Groups() {
    segment.add_group({45});
    segment.add_group({1, 64});
    segment.add_group({45, 0, 21});
  }
  SegmentBytes segment;
  static constexpr std::uint64_t kAcknowledged = 3;
  static constexpr std::uint64_t kLast = 6;
  std::size_t last_group() const { return segment.frames[kAcknowledged].begin; }
};

// --- headers -----------------------------------------------------------------------------------------------

TEST_CASE("a segment's header comes back, and with any bit flipped it is none") {
  const SegmentHeader written{test::kJournalId, 77, 123'456'789};
  Bytes bytes(kSegmentHeaderBytes);
  write_segment_header(written, bytes.data());
  SegmentHeader read;
  std::uint32_t version = 0;
  REQUIRE(read_segment_header(bytes, read, version) == HeaderState::kSound);
  CHECK(version == kJournalVersion);
  CHECK(read.journal_id == written.journal_id);
  CHECK(read.segment_id == written.segment_id);
  CHECK(read.first_seq == written.first_seq);
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    CAPTURE(bit);
    flip_bit(bytes, bit);
    CHECK(read_segment_header(bytes, read, version) != HeaderState::kSound);
    flip_bit(bytes, bit);
  }
  for (std::size_t size = 0; size < bytes.size(); ++size)
    CHECK(read_segment_header(std::span(bytes).first(size), read, version) == HeaderState::kNone);
}

TEST_CASE("a header of a newer version is told from damage, wherever that version keeps its checksum") {
  Bytes bytes(kSegmentHeaderBytes);
  write_segment_header({test::kJournalId, 1, 1}, bytes.data());
  bytes[8] = kJournalVersion + 1;
  SegmentHeader header;
  std::uint32_t version = 0;
  CHECK(read_segment_header(bytes, header, version) == HeaderState::kNewer);
  CHECK(version == kJournalVersion + 1);
}

TEST_CASE("a frame's header comes back, and with any bit flipped or in another segment it is none") {
  const FrameHeader written{
      .payload_bytes = 99, .seq = 1ULL << 40, .synced_seq = 5, .payload_crc = 0xdeadbeef};
  Bytes bytes(kFrameHeaderBytes);
  write_frame_header(written, 42, bytes.data());
  const auto read = read_frame_header(bytes, 42);
  REQUIRE(read.has_value());
  CHECK(read->payload_bytes == written.payload_bytes);
  CHECK(read->seq == written.seq);
  CHECK(read->synced_seq == written.synced_seq);
  CHECK(read->payload_crc == written.payload_crc);
  CHECK_FALSE(read_frame_header(bytes, 43).has_value());
  CHECK_FALSE(read_frame_header(std::span(bytes).first(kFrameHeaderBytes - 1), 42).has_value());
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    flip_bit(bytes, bit);
    CHECK_FALSE(read_frame_header(bytes, 42).has_value());
    flip_bit(bytes, bit);
  }
}

TEST_CASE("no two segments of a journal share a salt, and no two journals do") {
  std::set<std::uint32_t> salts;
  for (std::uint64_t id = 1; id <= 10'000; ++id) salts.insert(frame_salt({test::kJournalId, id, 1}));
  CHECK(salts.size() == 10'000);
  CHECK_FALSE(salts.contains(frame_salt({Uuid{{9}}, 1, 1})));
}

TEST_CASE("segments are listed by number, and other files are none") {
  const test::TempFolder folder;
  const std::string directory = folder.path().string();
  for (const std::uint64_t id : {10ULL, 9ULL, 100ULL}) test::write_file(segment_path(directory, id), {});
  for (const char* name : {"lock", "1.kvj", "0000000000000000000x.kvj", "00000000000000000008.kvj.spare"})
    test::write_file(folder.file(name), {});
  const auto files = list_segments(directory);
  REQUIRE(files.has_value());
  REQUIRE(files->size() == 3);
  CHECK((*files)[0].id == 9);
  CHECK((*files)[1].id == 10);
  CHECK((*files)[2].id == 100);
  const auto missing = list_segments(folder.file("nowhere"));
  REQUIRE(missing.has_value());
  CHECK(missing->empty());
}

// --- scans -------------------------------------------------------------------------------------------------

TEST_CASE("every frame of a sound segment is visited, also in front of preallocated zeros") {
  Groups groups;
  for (const std::size_t zeros : {0U, 8U, 4096U}) {
    Bytes bytes = groups.segment.bytes;
    bytes.resize(bytes.size() + zeros);
    const auto [scan, seqs] = scanned(groups.segment, bytes);
    CHECK(seqs == range(1, Groups::kLast));
    CHECK(scan.next_seq == Groups::kLast + 1);
    CHECK(scan.end == groups.segment.bytes.size());
    CHECK(scan.torn_bytes == 0);
    CHECK_FALSE(scan.damage.has_value());
  }
}

TEST_CASE(
    "a last group that is cut off at any byte is torn: whole frames before the cut stay, nothing is damage") {
  const Groups groups;
  for (std::size_t size = groups.last_group(); size <= groups.segment.bytes.size(); ++size) {
    CAPTURE(size);
    Bytes cut = groups.segment.bytes;
    cut.resize(size);
    // A frame is whole without its padding, too.
    std::uint64_t last = 0;
    for (const auto& frame : groups.segment.frames)
      if (frame.payload_end <= size) last = frame.seq;
    for (const std::size_t zeros : {0U, 640U}) {
      Bytes bytes = cut;
      bytes.resize(size + zeros);
      const auto [scan, seqs] = scanned(groups.segment, bytes);
      CHECK_FALSE(scan.damage.has_value());
      CHECK(seqs == range(1, last));
      CHECK(scan.next_seq == last + 1);
      CHECK(scan.end <= size + zeros);
    }
  }
}

TEST_CASE("of a last group with a hole nothing behind the hole is taken") {
  const Groups groups;
  for (std::size_t hole = Groups::kAcknowledged; hole < groups.segment.frames.size(); ++hole) {
    CAPTURE(hole);
    Bytes bytes = groups.segment.bytes;
    const auto& frame = groups.segment.frames[hole];
    std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(frame.begin),
              bytes.begin() + static_cast<std::ptrdiff_t>(frame.end), std::uint8_t{0});
    const auto [scan, seqs] = scanned(groups.segment, bytes);
    CHECK_FALSE(scan.damage.has_value());
    CHECK(seqs == range(1, frame.seq - 1));
    CHECK((scan.torn_bytes > 0) == (frame.seq < Groups::kLast));
  }
}

TEST_CASE("any bit of an acknowledged frame that flips is damage, with its frame and offset") {
  const Groups groups;
  for (std::size_t i = 0; i < Groups::kAcknowledged; ++i) {
    const auto& frame = groups.segment.frames[i];
    for (std::size_t bit = frame.begin * 8; bit < frame.payload_end * 8; ++bit) {
      CAPTURE(bit);
      Bytes bytes = groups.segment.bytes;
      flip_bit(bytes, bit);
      const auto [scan, seqs] = scanned(groups.segment, bytes);
      REQUIRE(scan.damage.has_value());
      CHECK(scan.damage->seq == frame.seq);
      CHECK(scan.damage->offset == frame.begin);
      CHECK(seqs == range(1, frame.seq - 1));

      const auto [skipping, others] = scanned(groups.segment, bytes, true);
      REQUIRE(skipping.damage.has_value());
      CHECK(skipping.damage->seq == frame.seq);
      CHECK(skipping.skipped == 1);
      CHECK(skipping.frames == Groups::kLast - 1);
      CHECK(std::find(others.begin(), others.end(), frame.seq) == others.end());
      CHECK(skipping.next_seq == Groups::kLast + 1);
    }
  }
}

// The limit of the format (sink/JOURNAL.md): nothing behind the last group says that it was synced.
TEST_CASE("a bit of the last group that flips looks like a torn group, and is counted as one") {
  const Groups groups;
  for (std::size_t i = Groups::kAcknowledged; i < groups.segment.frames.size(); ++i) {
    const auto& frame = groups.segment.frames[i];
    for (std::size_t bit = frame.begin * 8; bit < frame.payload_end * 8; ++bit) {
      CAPTURE(bit);
      Bytes bytes = groups.segment.bytes;
      flip_bit(bytes, bit);
      const auto [scan, seqs] = scanned(groups.segment, bytes);
      CHECK_FALSE(scan.damage.has_value());
      CHECK(seqs == range(1, frame.seq - 1));
      CHECK(scan.end == frame.begin);
      CHECK(scan.torn_bytes > 0);
    }
  }
}

TEST_CASE("with a segment behind it the last group counts as acknowledged: cut or flipped, it is damage") {
  const Groups groups;
  const std::uint64_t end_seq = Groups::kLast + 1;
  const std::size_t last_payload_end = groups.segment.frames.back().payload_end;
  for (std::size_t size = kSegmentHeaderBytes; size < last_payload_end; ++size) {
    CAPTURE(size);
    const auto& frames = groups.segment.frames;
    const auto broken =
        std::find_if(frames.begin(), frames.end(), [&](auto& f) { return f.payload_end > size; });
    Bytes bytes = groups.segment.bytes;
    bytes.resize(size);
    const auto [scan, seqs] = scanned(groups.segment, bytes, false, end_seq);
    REQUIRE(scan.damage.has_value());
    CHECK(scan.damage->seq == broken->seq);
    CHECK(scan.damage->offset == std::min(size, broken->begin));
    CHECK(seqs == range(1, broken->seq - 1));

    const auto [skipping, same] = scanned(groups.segment, bytes, true, end_seq);
    CHECK(same == seqs);
    CHECK(skipping.skipped == end_seq - broken->seq);
    CHECK(skipping.next_seq == end_seq);
  }
  for (std::size_t bit = groups.last_group() * 8; bit < groups.last_group() * 8 + 32 * 8; ++bit) {
    Bytes bytes = groups.segment.bytes;
    flip_bit(bytes, bit);
    CHECK(scanned(groups.segment, bytes, false, end_seq).scan.damage.has_value());
  }
}

TEST_CASE("frames at or behind the next segment's first are not taken: their group failed") {
  const Groups groups;
  const auto [scan, seqs] = scanned(groups.segment, groups.segment.bytes, false, Groups::kAcknowledged + 1);
  CHECK(seqs == range(1, Groups::kAcknowledged));
  CHECK_FALSE(scan.damage.has_value());
}

TEST_CASE("several damaged frames are all passed over, and the first one is named") {
  SegmentBytes segment;
  for (int i = 0; i < 8; ++i) segment.add_group({45});
  Bytes bytes = segment.bytes;
  for (const std::size_t i : {1U, 2U, 5U}) flip_bit(bytes, (segment.frames[i].begin + 40) * 8);
  const auto [scan, seqs] = scanned(segment, bytes, true);
  CHECK(seqs == std::vector<std::uint64_t>{1, 4, 5, 7, 8});
  CHECK(scan.damage->seq == 2);
  CHECK(scan.skipped == 3);
  CHECK(scan.end == segment.bytes.size());
}

TEST_CASE("what an earlier use of the file left is never taken for a frame of the new one") {
  // The same numbers at the same offsets, and more of them.
  SegmentBytes earlier(1);
  for (std::uint64_t seq = 1; seq <= 8; ++seq) earlier.add_frame(seq, seq - 1, payload_number(100 + seq));
  SegmentBytes recycled(2);
  recycled.add_group({45});
  recycled.add_group({45, 45});
  Bytes bytes = earlier.bytes;
  std::copy(recycled.bytes.begin(), recycled.bytes.end(), bytes.begin());
  for (const bool skip_damage : {false, true}) {
    const auto [scan, seqs] = scanned(recycled, bytes, skip_damage);
    CHECK(seqs == range(1, 3));
    CHECK(scan.next_seq == 4);
    CHECK_FALSE(scan.damage.has_value());
  }
  // Cut in the middle of the new frames, where old ones follow at once.
  for (std::size_t size = recycled.frames[1].begin; size < recycled.frames[2].payload_end; ++size) {
    CAPTURE(size);
    Bytes torn = earlier.bytes;
    std::copy(recycled.bytes.begin(), recycled.bytes.begin() + static_cast<std::ptrdiff_t>(size),
              torn.begin());
    const auto [scan, seqs] = scanned(recycled, torn);
    CHECK_FALSE(scan.damage.has_value());
    CHECK(seqs.size() == (size < recycled.frames[1].payload_end ? 1U : 2U));
  }
}

TEST_CASE("a file without a header of its own is unwritten only if it is zeros or was another segment") {
  Bytes bytes(4096);
  CHECK(is_unwritten({}, 5));
  CHECK(is_unwritten(bytes, 5));
  write_segment_header({test::kJournalId, 4, 1}, bytes.data());
  CHECK(is_unwritten(bytes, 5));
  CHECK_FALSE(is_unwritten(bytes, 4));
  flip_bit(bytes, 20 * 8);
  CHECK_FALSE(is_unwritten(bytes, 5));
}

}  // namespace
}  // namespace kavach::sink
