// OTLP samples: the events of make_batch() as an OpenTelemetry SDK exports them, for collectors.
//
// An ExportLogsServiceRequest in protobuf, the default of OTLP/HTTP: a log record an event, with the agent as
// the resource's service.name and everything else as attributes of the record.
#pragma once

#include <cstdint>

#include "bench/support/sample.h"

namespace kavach::bench {

// Keys have the same length as in JSON, and stamp_keys() works on them as well.
SampleBody make_otlp_sample(std::uint32_t events, std::uint64_t seed);

}  // namespace kavach::bench
