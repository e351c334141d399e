// Request source: the next request's bytes, with idempotency keys that no earlier one had.
//
// Plain bodies are rendered before the run, and the keys of a copy are numbered when it is sent. A gzip body
// cannot be changed after it was compressed, and compressing takes ten times as long as serving; but keys are
// deduplicated per organization, so each of the bodies that were compressed before the run is sent once under
// every API key (of distinct organizations). When all were sent there is no next request.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/load/options.h"
#include "bench/support/sample.h"

namespace kavach::bench {

class RequestSource {
 public:
  explicit RequestSource(const LoadOptions& options);

  // Appends a whole request to `out`, which `connection` will send; false when there is none left.
  bool append_next(std::size_t connection, std::string& out);

 private:
  struct Body {
    std::string bytes;
    std::string head_end;                  // from Content-Length on
    std::vector<std::size_t> key_offsets;  // none for gzip
  };

  std::vector<std::string> head_starts_;  // one per API key
  std::vector<Body> bodies_;
  bool gzip_;
  bool key_per_connection_;
  std::uint64_t sent_ = 0;
  std::uint64_t serial_ = 0;
};

}  // namespace kavach::bench
