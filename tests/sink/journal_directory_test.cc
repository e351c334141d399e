// A journal as a place to compare: what is due, what is damaged, and that a journal which runs and recycles
// its segments meanwhile is read as well.
#include "sink/reconcile/journal_directory.h"

#include <doctest/doctest.h>

#include <atomic>
#include <set>
#include <thread>

#include "sink/journal/frame.h"
#include "tests/sink/journal_fixture.h"

namespace kavach::sink::test {
namespace {

constexpr WallMicros kFirst = 1'800'000'000 * kMicrosPerSecond;
constexpr Period kAlways{0, 2 * kFirst};

// A batch of two events, accepted `number` seconds after kFirst.
Bytes payload_of_batch(std::uint32_t number) {
  Batch batch;
  batch.id.bytes[0] = 7;
  for (std::size_t i = 0; i < 4; ++i)
    batch.id.bytes[12 + i] = static_cast<std::uint8_t>(number >> (24 - 8 * i));
  batch.org_id.bytes[0] = 1;
  batch.received_at = kFirst + number * kMicrosPerSecond;
  Event event;
  event.agent_name = "agent";
  event.idempotency_key = "key";
  event.timestamp = batch.received_at - 5;
  batch.events = {event, event};
  Bytes payload;
  encode_batch(batch, {}, payload);
  return payload;
}

std::uint32_t number_of(const Uuid& event) {
  std::uint32_t number = 0;
  for (std::size_t i = 12; i < 16; ++i) number = number << 8 | event.bytes[i];
  return number;
}

struct DirectoryFixture : JournalFixture {
  std::uint64_t position = 0;
  Uuid asked;
  JournalDirectory directory{options.directory, [this](const Uuid& id) -> Result<std::uint64_t> {
                               asked = id;
                               return position;
                             }};

  // Batches by whether they are due.
  std::map<std::uint32_t, bool> read(const Period& period = kAlways) {
    std::map<std::uint32_t, bool> found;
    const Status noted = directory.note_position();
    REQUIRE(noted.has_value());
    const Status done = directory.read(period, [&](const FoundEvent& event) {
      CHECK(event.key == "key");
      CHECK(event.timestamp == event.received_at - 5);
      found[number_of(event.id)] = event.is_due;
    });
    if (!done) FAIL(done.error().message);
    return found;
  }
};

}  // namespace

TEST_CASE_FIXTURE(DirectoryFixture,
                  "events up to the follower's position are due, those of other times are left out") {
  std::filesystem::create_directory(options.directory);
  RunningJournal journal(options);
  for (std::uint32_t number = 1; number <= 4; ++number)
    REQUIRE(journal.write(payload_of_batch(number)) == Receipt::kJournal);
  position = 2;
  CHECK(read() == std::map<std::uint32_t, bool>{{1, true}, {2, true}, {3, false}, {4, false}});
  CHECK(asked == journal->id());
  CHECK(read({kFirst + 2 * kMicrosPerSecond, kFirst + 4 * kMicrosPerSecond}).size() == 2);
  CHECK(directory.damaged_frames() == 0);
}

TEST_CASE_FIXTURE(DirectoryFixture, "a directory that is missing or empty has no events") {
  CHECK(JournalDirectory("/nowhere", nullptr).note_position().has_value());
  CHECK(JournalDirectory("/nowhere", nullptr).read(kAlways, nullptr).has_value());
  CHECK(read().empty());
}

TEST_CASE_FIXTURE(DirectoryFixture, "a damaged frame is a fault unless it was carried on") {
  SegmentBytes segment;
  for (std::uint32_t number = 1; number <= 4; ++number)
    segment.add_frame(number, number - 1, payload_of_batch(number));
  flip_bit(segment.bytes, 8 * (segment.frames[1].begin + kFrameHeaderBytes + 20));
  std::filesystem::create_directory(options.directory);
  write_file(this->segment(1), segment.bytes);
  CHECK(read().size() == 3);
  CHECK(directory.damaged_frames() == 1);
  position = 1;
  read();
  CHECK(directory.damaged_frames() == 1);
  position = 2;
  read();
  CHECK(directory.damaged_frames() == 0);
}

TEST_CASE_FIXTURE(DirectoryFixture, "what was lost up to the next segment is counted") {
  SegmentBytes first;
  for (std::uint32_t number = 1; number <= 4; ++number)
    first.add_frame(number, number - 1, payload_of_batch(number));
  first.bytes.resize(first.frames[1].begin);
  SegmentBytes second(2, 5);
  second.add_frame(5, 4, payload_of_batch(5));
  std::filesystem::create_directory(options.directory);
  write_file(segment(1), first.bytes);
  write_file(segment(2), second.bytes);
  CHECK(read().size() == 2);
  CHECK(directory.damaged_frames() == 3);
  position = 3;
  read();
  CHECK(directory.damaged_frames() == 1);
}

TEST_CASE_FIXTURE(DirectoryFixture,
                  "a journal that is written and recycled meanwhile is no journal with damage") {
  std::filesystem::create_directory(options.directory);
  RunningJournal journal(options);
  REQUIRE(journal.write(payload_of_batch(1)) == Receipt::kJournal);
  std::atomic<bool> stopping{false};
  std::atomic<std::uint32_t> newest{1};
  std::thread writer([&] {
    for (std::uint32_t number = 2; !stopping; ++number) {
      newest = number;
      if (journal.write(payload_of_batch(number)) != Receipt::kJournal) break;
      if (number % 16 == 0) journal->release(journal->durable_seq());
    }
  });
  std::size_t events = 0;
  // Until segments were recycled many times, however slow the disk is.
  for (int i = 0; i < 200 || (newest <= 1'000 && journal->healthy()); ++i) {
    const std::uint32_t before = newest;
    const auto found = read();
    events += found.size();
    CHECK(directory.damaged_frames() == 0);
    if (!found.empty()) CHECK(found.rbegin()->first <= newest);
    if (!found.empty()) CHECK(found.rbegin()->first + 1 >= before);
  }
  stopping = true;
  writer.join();
  CHECK(events > 200);
  CHECK(journal->healthy());
}

}  // namespace kavach::sink::test
