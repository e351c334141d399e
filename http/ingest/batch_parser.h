// Batch parser: a request body to a Batch, or to the `422`/`400` that says everything that is wrong with it.
//
// Three passes (design.md, a batch's way). The direct one (direct_pass.h) takes the bodies that clients
// mostly send. The fast one (simdjson On-Demand) takes every body whose every field has its plain type, and
// only finds out THAT a body is anything else. The slow one (python_json.h, validate.h) then does what
// FastAPI with Pydantic v2 does, byte for byte: lax conversions, last duplicate member wins, all errors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "engine/event.h"

namespace kavach::http {

struct ParseLimits {
  std::uint32_t batch_events_max = 1000;
};

// A body that is no batch: the status and the JSON body of the answer (contract/agentkavach.md section 9).
struct Refusal {
  int status = 422;
  std::string body;
};

// One per shard, reused by every request on it; not thread-safe.
class BatchParser {
 public:
  explicit BatchParser(ParseLimits limits);
  ~BatchParser();
  // From the next body on.
  void set_limits(ParseLimits limits);

  // Appends to `batch.events` (which it clears first). Views point into `body` or into `arena`, which must
  // both outlive the batch; `arena` is cleared first. Timestamps later than `now` are clamped to `now`.
  // REQUIRES: bounds::kBodyPadding readable bytes behind `body`.
  // `json` says whether the Content-Type was JSON (or missing); otherwise the body is not parsed.
  bool parse(std::string_view body, bool json, WallMicros now, Batch& batch, std::string& arena,
             Refusal& refusal);

  // The passes by themselves, for tests, fuzzers and benchmarks. direct() and fast() return false for a body
  // that they do not take.
  bool direct(std::string_view body, WallMicros now, Batch& batch, std::string& arena);
  bool fast(std::string_view body, WallMicros now, Batch& batch, std::string& arena);
  bool slow(std::string_view body, bool json, WallMicros now, Batch& batch, std::string& arena,
            Refusal& refusal);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kavach::http
