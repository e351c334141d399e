// Buckets: usage by hour, and by minute where a period begins or ends within an hour.
//
// An hour of which a period wants only a part is read from usage_minute while minutes are kept (48 h); an
// older one counts where it begins (contract/entities.md section 5). Each statement over KAVACH_BUCKETS takes
// the organization as ?1, the first hour as ?2 and three hours to split as ?3 to ?5.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/clock.h"
#include "sink/store/rollup.h"

namespace kavach::sink {

// A table expression. `more`: a condition on both tables, such as " AND agent_name = ?6". A part for each
// hour to split, since of ranges in one OR an index finds none: all minutes of the organization would be
// read.
inline std::string buckets_sql(const std::string& more) {
  const std::string rest =
      ", events, errors, cost_nano, input_tokens, output_tokens, duration_ms, timed_events FROM ";
  std::string sql = "(SELECT agent_name, hour_s AS bucket_s" + rest +
                    "usage_hourly WHERE org_id = ?1 AND hour_s >= ?2 AND hour_s NOT IN (?3, ?4, ?5)" + more;
  for (const std::string hour : {"?3", "?4", "?5"}) {
    sql += " UNION ALL SELECT agent_name, minute_s" + rest +
           "usage_minute WHERE org_id = ?1 AND minute_s >= " + hour + " AND minute_s < " + hour + " + 3600" +
           more;
  }
  return sql + ") AS buckets";
}

// The hours to split: those of ends of periods that lie within them and are young enough.
class SplitHours {
 public:
  explicit SplitHours(WallMicros now) noexcept : kept_since_(now - kMinuteRowsUs) {}

  // REQUIRES: at most three of them are within young hours.
  void add(WallMicros end) noexcept {
    const WallMicros hour = end - end % kMicrosPerHour;
    const std::int64_t hour_s = hour / kMicrosPerSecond;
    if (hour == end || hour < kept_since_ || std::find(hours_.begin(), hours_.end(), hour_s) != hours_.end())
      return;
    if (used_ < hours_.size()) hours_[used_++] = hour_s;
  }
  std::int64_t operator[](std::size_t i) const noexcept { return hours_[i]; }

 private:
  static constexpr std::int64_t kNone = -3600;  // no minute is in it
  WallMicros kept_since_;
  std::array<std::int64_t, 3> hours_{kNone, kNone, kNone};
  std::size_t used_ = 0;
};

}  // namespace kavach::sink
