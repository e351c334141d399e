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

// Exit codes: nothing is missing or doubled; something is; it could not be found out.
inline constexpr int kExitClean = 0;
inline constexpr int kExitDiffers = 1;
inline constexpr int kExitNotCompared = 3;

struct Reconciled {
  std::string text;  // to be printed
  int exit_code = kExitClean;
};

// The failure: why it could not be found out; `usage_error` tells that the arguments are wrong.
Result<Reconciled> run_reconcile(const Config& config, const ReconcileArguments& arguments,
                                 bool& usage_error);

}  // namespace kavach::http
