// `kavachd journal inspect`: reads a journal's directory without changing it.
#include <optional>

#include "sink/journal/frame.h"
#include "sink/journal/journal.h"
#include "sink/journal/segment.h"

namespace kavach::sink {
namespace {

struct Opened {
  MappedFile file;
  SegmentHeader header;
  HeaderState state;
  std::uint32_t version = 0;
};

std::string problem_of(const SegmentScan& scan) {
  if (!scan.damage) return "";
  return "acknowledged frame " + std::to_string(scan.damage->seq) + " is damaged at offset " +
         std::to_string(scan.damage->offset) + ", " + std::to_string(scan.skipped) + " frames lost";
}

}  // namespace

Result<JournalSummary> inspect_journal(const std::string& directory) {
  auto files = list_segments(directory);
  if (!files) return files.error();
  std::vector<Opened> opened;
  for (const SegmentFile& file : *files) {
    auto mapped = MappedFile::open(file.path);
    if (!mapped) return mapped.error();
    SegmentHeader header;
    std::uint32_t version = 0;
    const HeaderState state = read_segment_header(mapped->bytes(), header, version);
    opened.push_back({std::move(*mapped), header, state, version});
  }
  JournalSummary summary;
  summary.version = kJournalVersion;
  for (std::size_t i = 0; i < opened.size(); ++i) {
    SegmentSummary& segment = summary.segments.emplace_back();
    segment.file = (*files)[i].path;
    segment.id = (*files)[i].id;
    segment.bytes = opened[i].file.bytes().size();
    const bool last = i + 1 == opened.size();
    if (last && is_unwritten(opened[i].file.bytes(), segment.id)) continue;
    if (opened[i].state != HeaderState::kSound || opened[i].header.segment_id != segment.id) {
      segment.problem =
          opened[i].state == HeaderState::kNewer
              ? "journal format " + std::to_string(opened[i].version) + " is newer than this kavachd"
              : "the header is damaged at offset 0";
      continue;
    }
    std::optional<std::uint64_t> end_seq;
    if (!last && opened[i + 1].state == HeaderState::kSound &&
        opened[i + 1].header.segment_id == (*files)[i + 1].id) {
      end_seq = opened[i + 1].header.first_seq;
    }
    Batch batch;
    std::string arena;
    const SegmentScan scan =
        scan_segment(opened[i].file.bytes(), opened[i].header, end_seq, true,
                     [&](const FrameHeader& frame, std::span<const std::uint8_t> payload, std::uint64_t) {
                       segment.last_seq = frame.seq;
                       if (decode_batch(payload, batch, arena)) segment.events += batch.events.size();
                     });
    summary.journal_id = opened[i].header.journal_id;
    segment.first_seq = opened[i].header.first_seq;
    segment.frames = scan.frames;
    segment.torn_bytes = scan.torn_bytes;
    segment.problem = problem_of(scan);
  }
  return summary;
}

}  // namespace kavach::sink
