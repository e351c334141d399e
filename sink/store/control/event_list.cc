#include "sink/store/control/event_list.h"

#include <algorithm>

namespace kavach::sink {
namespace {

#define KAVACH_EVENT_COLUMNS                                                              \
  "SELECT id, agent_name, provider, model, run_id, prompt, input_tokens, output_tokens, " \
  "duration_ms, cost_nano, is_error, ts_us FROM events "

auto add_to(EventPage& page) {
  return [&page](const Statement::Rows& row) {
    page.events.push_back({.id = std::string(row.text(0)),
                           .agent_name = std::string(row.text(1)),
                           .provider = std::string(row.text(2)),
                           .model = std::string(row.text(3)),
                           .run_id = std::string(row.text(4)),
                           .prompt = std::string(row.text(5)),
                           .input_tokens = row.integer(6),
                           .output_tokens = row.integer(7),
                           .duration_ms = row.integer(8),
                           .cost = row.integer(9),
                           .is_error = row.integer(10) != 0,
                           .timestamp = row.integer(11)});
  };
}

// How many of its events lie in [start, end); both may be the ends of time.
StoreResult<std::int64_t> count(ControlStore& store, std::string_view org_id, std::string_view agent_name,
                                int error_min, int error_max, WallMicros start, WallMicros end) {
  // Retention takes events and leaves the hours, so it is counted from the oldest event that is there.
  std::optional<WallMicros> oldest, newest;
  auto found = store.each(
      "SELECT MIN(ts_us), MAX(ts_us) FROM (SELECT * FROM (SELECT ts_us FROM events WHERE org_id = ?1 AND "
      "agent_name = ?2 ORDER BY ts_us LIMIT 1) AS first UNION ALL SELECT * FROM (SELECT ts_us FROM events "
      "WHERE org_id = ?1 AND agent_name = ?2 ORDER BY ts_us DESC LIMIT 1) AS last) AS ends",
      [&](const Statement::Rows& row) {
        oldest = row.optional_integer(0);
        newest = row.optional_integer(1);
      },
      org_id, agent_name);
  if (!found) return found.error();
  if (!oldest) return 0;
  start = std::max(start, *oldest);
  end = std::min(end, *newest + 1);
  if (start >= end) return 0;
  const auto by_event = [&](WallMicros from, WallMicros to) -> StoreResult<std::int64_t> {
    if (from >= to) return 0;
    return store.scalar(
        "SELECT COUNT(*) FROM events WHERE org_id = ?1 AND agent_name = ?2 AND ts_us >= ?3 AND ts_us < ?4 "
        "AND is_error >= ?5 AND is_error <= ?6",
        org_id, agent_name, from, to, error_min, error_max);
  };
  const WallMicros first_whole = (start + kMicrosPerHour - 1) / kMicrosPerHour * kMicrosPerHour;
  const WallMicros end_whole = end / kMicrosPerHour * kMicrosPerHour;
  if (first_whole >= end_whole) return by_event(start, end);
  auto head = by_event(start, first_whole);
  if (!head) return head;
  auto tail = by_event(end_whole, end);
  if (!tail) return tail;
  auto whole = store.scalar(
      "SELECT COALESCE(SUM(CASE WHEN ?5 = 1 THEN errors WHEN ?6 = 0 THEN events - errors ELSE events END), "
      "0) FROM usage_hourly WHERE org_id = ?1 AND agent_name = ?2 AND hour_s >= ?3 AND hour_s < ?4",
      org_id, agent_name, first_whole / kMicrosPerSecond, end_whole / kMicrosPerSecond, error_min, error_max);
  if (!whole) return whole;
  return *head + *whole + *tail;
}

// Pages of a run are in the order of "ts_us + 0": its events are found by the index of runs and then sorted.
// For an order that a wider index has, SQLite takes that one, and reads all that the organization sent
// meanwhile.

// What a run's row says: by its times an index finds its events, and Postgres the partitions that have them.
struct RunTimes {
  std::int64_t events = 0;
  WallMicros first = 0, last = -1;
};
StoreResult<RunTimes> times_of(ControlStore& store, std::string_view org_id, std::string_view run_id) {
  RunTimes times;
  auto read = store.each(
      "SELECT total_events, first_event_us, last_event_us FROM runs WHERE org_id = ?1 AND run_id = ?2",
      [&times](const Statement::Rows& row) {
        times = {.events = row.integer(0), .first = row.integer(1), .last = row.integer(2)};
      },
      org_id, run_id);
  if (!read) return read.error();
  return times;
}

}  // namespace

StoreResult<EventPage> agent_events(ControlStore& store, std::string_view org_id, std::string_view agent_name,
                                    const EventFilter& filter) {
  const int error_min = filter.is_error.value_or(false) ? 1 : 0;
  const int error_max = filter.is_error.value_or(true) ? 1 : 0;
  EventPage page;
  if (filter.run_id.empty()) {
    auto total = count(store, org_id, agent_name, error_min, error_max, filter.start, filter.end);
    if (!total) return total.error();
    page.total = *total;
    // Errors may be few among many: they have an index of their own, which wants the literal.
#define KAVACH_EVENTS_WHERE(outcome)                                                  \
  KAVACH_EVENT_COLUMNS                                                                \
  "WHERE org_id = ?1 AND agent_name = ?2 AND ts_us >= ?3 AND ts_us < ?4 AND " outcome \
  " ORDER BY ts_us DESC, id DESC LIMIT ?5 OFFSET ?6"
    const std::string_view sql = !filter.is_error   ? KAVACH_EVENTS_WHERE("is_error >= 0")
                                 : *filter.is_error ? KAVACH_EVENTS_WHERE("is_error = 1")
                                                    : KAVACH_EVENTS_WHERE("is_error = 0");
#undef KAVACH_EVENTS_WHERE
    auto read = store.each(sql, add_to(page), org_id, agent_name, filter.start, filter.end, filter.limit,
                           filter.offset);
    if (!read) return read.error();
    return page;
  }
  const auto times = times_of(store, org_id, filter.run_id);
  if (!times) return times.error();
  const WallMicros start = std::max(filter.start, times->first);
  const WallMicros end = std::min(filter.end, times->last + 1);
  auto total = store.scalar(
      "SELECT COUNT(*) FROM events WHERE org_id = ?1 AND run_id = ?2 AND ts_us >= ?3 AND ts_us < ?4 AND "
      "agent_name = ?5 AND is_error >= ?6 AND is_error <= ?7",
      org_id, filter.run_id, start, end, agent_name, error_min, error_max);
  if (!total) return total.error();
  page.total = *total;
  auto read = store.each(
      KAVACH_EVENT_COLUMNS
      "WHERE org_id = ?1 AND run_id = ?2 AND ts_us >= ?3 AND ts_us < ?4 AND agent_name = ?5 AND is_error >= "
      "?6 AND is_error <= ?7 ORDER BY ts_us + 0 DESC, id DESC LIMIT ?8 OFFSET ?9",
      add_to(page), org_id, filter.run_id, start, end, agent_name, error_min, error_max, filter.limit,
      filter.offset);
  if (!read) return read.error();
  return page;
}

StoreResult<EventPage> run_events(ControlStore& store, std::string_view org_id, std::string_view run_id,
                                  std::int64_t limit, std::int64_t offset) {
  EventPage page;
  const auto times = times_of(store, org_id, run_id);
  if (!times) return times.error();
  page.total = times->events;
  auto read = store.each(KAVACH_EVENT_COLUMNS
                         "WHERE org_id = ?1 AND run_id = ?2 AND ts_us >= ?3 AND ts_us <= ?4 ORDER BY ts_us + "
                         "0, id LIMIT ?5 OFFSET ?6",
                         add_to(page), org_id, run_id, times->first, times->last, limit, offset);
  if (!read) return read.error();
  return page;
}

}  // namespace kavach::sink
