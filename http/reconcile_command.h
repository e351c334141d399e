// `kavachd reconcile`: makes the places that the config names, compares them and prints the report.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "engine/config.h"
#include "engine/result.h"

namespace kavach::http {

// A moment: ISO 8601, or how long before `now`: 90s, 15m, 24h, 7d.
std::optional<WallMicros> parse_moment(std::string_view text, WallMicros now) noexcept;

struct ReconcileArguments {
  std::string since = "24h";
  std::string until;                  // empty: the start of the command
  std::vector<std::string> journals;  // directories of other nodes
  bool json = false;
};

// Exit codes, for scripts: nothing is missing or doubled; something is; it could not be found out.
inline constexpr int kExitClean = 0;
inline constexpr int kExitDiffers = 1;
inline constexpr int kExitNotCompared = 3;

inline constexpr const char* kReconcileHelp =
    R"(Compares the events that were accepted in the period, and changes nothing. What a journal still has must
be in the topic (with Kafka) and in the store, the store must have it once, and its hourly roll-ups must be
the sums of its events. Nodes and writers may run meanwhile: what is behind their noted positions and not
in the next place is `on its way`, and no fault; what was accepted after the start is left out. A dropped
duplicate is told from a missing event as long as its key is remembered (quota.dedup_window_hours), a
record that went by age as kafka.retention_hours says.

Memory: up to 100 bytes an event of the period, and some 150 MB for the clients of store and Kafka and one
journal segment: a million events take about 210 MB and 20 s. A period is read as a whole, so of more than
some million events compare a day or an hour at a time. The store's events are found by an index and read
three times, which the database feels; the hours that they touch are added up by it.

Exit code: 0 clean, 1 something is missing, doubled or differs, 2 wrong usage, 3 it could not be found out.)";

struct Reconciled {
  std::string text;  // to be printed
  int exit_code = kExitClean;
};

// The failure: why it could not be found out; `usage_error` tells that the arguments are wrong.
Result<Reconciled> run_reconcile(const Config& config, const ReconcileArguments& arguments,
                                 bool& usage_error);

}  // namespace kavach::http
