// Options: what a run of kavach-load does, from the command line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kavach::bench {

enum class Format : std::uint8_t {
  kSdk,   // JSON, as the Python SDK sends it
  kOtlp,  // log records as OTLP/HTTP in protobuf
};

struct LoadOptions {
  std::string address = "127.0.0.1";  // from the URL
  std::uint16_t port = 8000;
  std::string path = "/v1/ingest";
  std::vector<std::string> keys;
  bool key_per_connection = false;  // as SDKs' processes do, instead of all in turn
  std::uint32_t connections = 64;
  std::uint32_t events = 1;
  std::uint32_t pipeline = 1;  // requests under way on one connection
  Format format = Format::kSdk;
  bool gzip = false;
  std::uint32_t gzip_bodies = 256;
  double rate = 0;  // requests per second; 0: as fast as answers come
  double warmup_s = 1;
  double duration_s = 5;
  std::uint64_t requests = 0;  // end after so many answers instead of after duration_s
  double timeout_s = 10;       // for an answer
  bool spin = false;           // never sleep: an answer wakes nobody
  std::vector<int> server_pids;
  bool json = false;
};

// Reads the command line. When there is nothing to run (--help, a wrong option) it has been said, and
// `exit_code` is set.
bool read_options(int argc, char** argv, LoadOptions& options, int& exit_code);

}  // namespace kavach::bench
