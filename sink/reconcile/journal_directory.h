// JournalDirectory: the journal of a node as a place to compare, also while that node runs.
//
// Segments are read as a whole into memory, one at a time (journal.segment_bytes), and never changed. From
// the newest to the oldest, since the oldest are recycled. One that is recycled meanwhile counts as gone:
// what it had was carried on.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "sink/journal/segment.h"
#include "sink/reconcile/reconcile.h"

namespace kavach::sink {

class JournalDirectory final : public JournalPlace {
 public:
  // The last frame of the journal with this id that its follower has carried on.
  using FindPosition = std::function<Result<std::uint64_t>(const Uuid& journal_id)>;

  // A directory that is missing or empty is a journal without frames.
  JournalDirectory(std::string directory, FindPosition find_position)
      : directory_(std::move(directory)), find_position_(std::move(find_position)) {}

  Status note_position() override;
  Status read(const Period& period, const FoundVisitor& each) override;
  std::uint64_t damaged_frames() const override { return damaged_frames_; }

 private:
  Status read_segment(const SegmentFile& segment, const SegmentHeader& header,
                      std::optional<std::uint64_t> end_seq, const Period& period, const FoundVisitor& each);

  const std::string directory_;
  const FindPosition find_position_;
  std::uint64_t position_ = 0;
  std::uint64_t damaged_frames_ = 0;
};

}  // namespace kavach::sink
