#include "sink/store/control/usage.h"

#include <algorithm>

#include "sink/store/rollup.h"
#include "sink/store/sum_in_parts.h"

namespace kavach::sink {
namespace {

constexpr std::int64_t kHourUs = kHourS * kMicrosPerSecond;

// --- which rows make up a range ----------------------------------------------------------------------------

bool splits_an_hour(WallMicros edge) noexcept {
  return edge % kHourUs != 0;
}

std::int64_t hour_of(WallMicros edge) noexcept {
  return bucket_start(edge, kHourS);
}

// The first hour that starts at `edge` or later.
std::int64_t hour_from(WallMicros edge) noexcept {
  return splits_an_hour(edge) ? hour_of(edge) + kHourS : hour_of(edge);
}

// Whether usage_minute has all of the hour of `edge`.
bool has_minutes(const ControlStore& store, WallMicros edge) noexcept {
  return hour_of(edge) * kMicrosPerSecond > store.now() - kMinuteRowsUs;
}

// Where counting starts or ends for `edge`, in seconds.
std::int64_t counted_edge(const ControlStore& store, WallMicros edge) noexcept {
  return has_minutes(store, edge) ? bucket_start(edge, kMinuteS) : hour_from(edge);
}

// Whole hours, and the minutes before and behind them.
struct Rows {
  Rows(const ControlStore& store, TimeRange range) noexcept
      : from(counted_edge(store, range.from)), to(std::max(from, counted_edge(store, range.to))) {
    const std::int64_t first = hour_from(from * kMicrosPerSecond), behind = hour_of(to * kMicrosPerSecond);
    hours_from = std::min(first, to);  // `to`: within one hour there are only minutes
    hours_to = std::max(hours_from, behind);
  }

  std::int64_t from, hours_from, hours_to, to;
};

// ?1: the organization; ?2 to ?5: the members of Rows, in their order.
std::string rows_of_range() {
  const std::string columns =
      "SELECT agent_name, provider, model, events, errors, timed_events, cost_nano, input_tokens, "
      "output_tokens, duration_ms FROM ";
  return "(" + columns + "usage_hourly WHERE org_id = ?1 AND hour_s >= ?3 AND hour_s < ?4 UNION ALL " +
         columns + "usage_minute WHERE org_id = ?1 AND minute_s >= ?2 AND minute_s < ?3 UNION ALL " +
         columns + "usage_minute WHERE org_id = ?1 AND minute_s >= ?4 AND minute_s < ?5) used";
}

// --- sums --------------------------------------------------------------------------------------------------

std::string sums() {
  return "SUM(events), SUM(errors), SUM(timed_events), " + sum_in_parts("cost_nano") + ", " +
         sum_in_parts("input_tokens") + ", " + sum_in_parts("output_tokens") + ", " +
         sum_in_parts("duration_ms");
}

// Of the columns of sums(), the first of which is `first`.
UsageSums sums_of(const Statement::Rows& row, int first) noexcept {
  return {.events = row.integer(first),
          .errors = row.integer(first + 1),
          .timed_events = row.integer(first + 2),
          .cost = sum_at(row, first + 3),
          .input_tokens = sum_at(row, first + 5),
          .output_tokens = sum_at(row, first + 7),
          .duration_ms = sum_at(row, first + 9)};
}

template <typename Change>
UsageSums& change(UsageSums& sums, const UsageSums& by, Change change_one) noexcept {
  for (const auto member :
       {&UsageSums::events, &UsageSums::errors, &UsageSums::timed_events, &UsageSums::cost,
        &UsageSums::input_tokens, &UsageSums::output_tokens, &UsageSums::duration_ms})
    sums.*member = change_one(sums.*member, by.*member);
  return sums;
}

// As a number, for the order alone: the exact sum may not fit.
constexpr std::string_view kCostFirst = "ORDER BY SUM(CAST(cost_nano AS DOUBLE PRECISION)) DESC, ";

// `values`: of the parameters from ?6 on.
template <typename Each, typename... Values>
StoreResult<void> each_in(ControlStore& store, std::string_view sql, std::string_view org_id, TimeRange range,
                          Each each, const Values&... values) {
  const Rows rows(store, range);
  return store.each(sql, each, org_id, rows.from, rows.hours_from, rows.hours_to, rows.to, values...);
}

}  // namespace

UsageSums& UsageSums::operator+=(const UsageSums& other) noexcept {
  return change(*this, other, [](std::int64_t sum, std::int64_t more) { return saturating_add(sum, more); });
}

UsageSums& UsageSums::operator-=(const UsageSums& other) noexcept {
  return change(*this, other, [](std::int64_t sum, std::int64_t less) { return saturating_add(sum, -less); });
}

TimeRange widened(const ControlStore& store, TimeRange range) noexcept {
  const auto step = [&store](WallMicros edge) { return has_minutes(store, edge) ? kMinuteS : kHourS; };
  const std::int64_t to_step = step(range.to);
  return {.from = bucket_start(range.from, step(range.from)) * kMicrosPerSecond,
          .to = bucket_start(range.to + to_step * kMicrosPerSecond - 1, to_step) * kMicrosPerSecond};
}

StoreResult<RangeUsage> usage_in(ControlStore& store, std::string_view org_id, TimeRange range) {
  static const std::string sql = "SELECT COUNT(DISTINCT agent_name), " + sums() + " FROM " + rows_of_range();
  RangeUsage usage;
  auto read = each_in(store, sql, org_id, range, [&usage](const Statement::Rows& row) {
    usage = {.sums = sums_of(row, 1), .active_agents = row.integer(0)};
  });
  if (!read) return read.error();
  return usage;
}

StoreResult<std::vector<UsageSums>> usage_between(ControlStore& store, std::string_view org_id,
                                                  std::span<const WallMicros> edges) {
  static const std::string hours = "SELECT hour_s, " + sums() +
                                   " FROM usage_hourly WHERE org_id = ?1 AND hour_s >= ?2 AND hour_s < ?3 "
                                   "GROUP BY hour_s";
  static const std::string minutes =
      "SELECT " + sums() + " FROM usage_minute WHERE org_id = ?1 AND minute_s >= ?2 AND minute_s < ?3";
  if (edges.size() < 2) return std::vector<UsageSums>();
  std::vector<UsageSums> between(edges.size() - 1);
  // Each hour goes to where it starts ...
  auto read = store.each(
      hours,
      [&](const Statement::Rows& row) {
        const auto behind = std::upper_bound(edges.begin(), edges.end(), row.integer(0) * kMicrosPerSecond);
        between[static_cast<std::size_t>(behind - edges.begin()) - 1] += sums_of(row, 1);
      },
      org_id, hour_from(edges.front()), hour_from(edges.back()));
  if (!read) return read.error();
  // ... and the minutes behind an edge go on to the next: of days, at most four edges have their minutes.
  for (std::size_t i = 0; i < edges.size(); ++i) {
    if (!splits_an_hour(edges[i]) || !has_minutes(store, edges[i])) continue;
    UsageSums moved;
    read = store.each(
        minutes, [&moved](const Statement::Rows& row) { moved = sums_of(row, 0); }, org_id,
        bucket_start(edges[i], kMinuteS), hour_from(edges[i]));
    if (!read) return read.error();
    if (i > 0) between[i - 1] -= moved;
    if (i < between.size()) between[i] += moved;
  }
  return between;
}

StoreResult<std::vector<ModelUsage>> top_models(ControlStore& store, std::string_view org_id, TimeRange range,
                                                std::int64_t limit) {
  static const std::string sql = "SELECT model, provider, " + sums() + " FROM " + rows_of_range() +
                                 " GROUP BY model, provider " + std::string(kCostFirst) +
                                 "model, provider LIMIT ?6";
  std::vector<ModelUsage> top;
  auto read = each_in(
      store, sql, org_id, range,
      [&top](const Statement::Rows& row) {
        top.push_back({std::string(row.text(0)), std::string(row.text(1)), sums_of(row, 2)});
      },
      limit);
  if (!read) return read.error();
  return top;
}

StoreResult<std::vector<NamedUsage>> top_agents(ControlStore& store, std::string_view org_id, TimeRange range,
                                                std::int64_t limit) {
  static const std::string sql = "SELECT agent_name, " + sums() + " FROM " + rows_of_range() +
                                 " GROUP BY agent_name " + std::string(kCostFirst) + "agent_name LIMIT ?6";
  std::vector<NamedUsage> top;
  auto read = each_in(
      store, sql, org_id, range,
      [&top](const Statement::Rows& row) {
        top.push_back({std::string(row.text(0)), sums_of(row, 1)});
      },
      limit);
  if (!read) return read.error();
  return top;
}

}  // namespace kavach::sink
