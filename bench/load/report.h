// Report: what a run of the load generator found, for people and for scripts.
#pragma once

#include <string>

#include "bench/load/generator.h"

namespace kavach::bench {

std::string report_text(const LoadOptions& options, const LoadReport& report);
// One JSON object on one line. Times are in microseconds unless the name says otherwise.
std::string report_json(const LoadOptions& options, const LoadReport& report);

}  // namespace kavach::bench
