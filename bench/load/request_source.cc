#include "bench/load/request_source.h"

#include <fmt/format.h>

#include <algorithm>

#include "bench/support/otlp_sample.h"
#include "engine/ids.h"

namespace kavach::bench {
namespace {

// Distinct plain bodies: about 2 MiB of them, which stay in the generator's cache.
constexpr std::uint32_t kPlainEvents = 6000;
constexpr std::uint32_t kPlainBodiesMax = 1024;
constexpr std::uint32_t kPlainBodiesMin = 8;

}  // namespace

RequestSource::RequestSource(const LoadOptions& options)
    : gzip_(options.gzip), key_per_connection_(options.key_per_connection) {
  // As httpx sends it for the SDK.
  for (const std::string& key : options.keys) {
    head_starts_.push_back(
        fmt::format("POST {} HTTP/1.1\r\nHost: {}:{}\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
                    "Connection: keep-alive\r\nAuthorization: Bearer {}\r\nContent-Type: {}\r\n"
                    "User-Agent: agentkavach-sdk/0.1.0\r\n{}",
                    options.path, options.address, options.port, key,
                    options.format == Format::kOtlp ? "application/x-protobuf" : "application/json",
                    gzip_ ? "Content-Encoding: gzip\r\n" : ""));
  }
  // Another run must not repeat this one's keys.
  Random random;
  const std::uint64_t first_seed = random.next();
  const std::uint32_t count =
      gzip_ ? options.gzip_bodies
            : std::clamp(kPlainEvents / options.events, kPlainBodiesMin, kPlainBodiesMax);
  for (std::uint32_t i = 0; i < count; ++i) {
    SampleBody sample = options.format == Format::kOtlp ? make_otlp_sample(options.events, first_seed + i)
                                                        : make_sample(options.events, first_seed + i);
    Body& body = bodies_.emplace_back();
    body.bytes = gzip_ ? gzip(sample.text) : std::move(sample.text);
    if (!gzip_) body.key_offsets = std::move(sample.key_offsets);
    body.head_end = fmt::format("Content-Length: {}\r\n\r\n", body.bytes.size());
  }
}

bool RequestSource::append_next(std::size_t connection, std::string& out) {
  const std::uint64_t round = sent_ / bodies_.size();
  if (gzip_ && round >= head_starts_.size()) return false;
  const Body& body = bodies_[sent_ % bodies_.size()];
  const std::uint64_t turn = key_per_connection_ ? connection : sent_;
  out += head_starts_[gzip_ ? round : turn % head_starts_.size()];
  out += body.head_end;
  const std::size_t begin = out.size();
  out += body.bytes;
  stamp_keys(out.data() + begin, body.key_offsets, serial_);
  ++sent_;
  return true;
}

}  // namespace kavach::bench
