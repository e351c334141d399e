// Kavach's parser on a pipe, so that a test in another language can ask what it answers.
//
// In, per request: one byte 'j' (the Content-Type is JSON) or 't', the body's size as 4 bytes little-endian,
// the body. Out: the status as 2 bytes, the answer's size as 4 bytes, the answer. A batch that is taken is
// answered 202 and, as JSON, what Kavach understood: an array with an array of each event's fields.
#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iterator>
#include <string>

#include "engine/padded_buffer.h"
#include "http/ingest/batch_parser.h"
#include "http/ingest/python_json.h"

namespace {

bool read_exactly(void* out, std::size_t size) {
  return std::fread(out, 1, size, stdin) == size;
}

template <std::size_t kSize>
void write_number(std::size_t value) {
  std::array<unsigned char, kSize> bytes{};
  for (unsigned char& byte : bytes) {
    byte = static_cast<unsigned char>(value & 0xFF);
    value >>= 8;
  }
  std::fwrite(bytes.data(), 1, bytes.size(), stdout);
}

std::string describe(const kavach::Batch& batch) {
  std::string out = "[";
  for (const kavach::Event& e : batch.events) {
    out += out.size() > 1 ? ",[" : "[";
    for (const std::string_view text :
         {e.agent_name, e.provider, e.model, e.idempotency_key, e.run_id, e.prompt}) {
      kavach::http::render_json_string(text, out);
      out += ',';
    }
    fmt::format_to(std::back_inserter(out), "{},{},{},{},{},{},{}]", e.timestamp, e.input_tokens,
                   e.output_tokens, e.duration_ms, e.cost, e.is_error, e.partial);
  }
  return out + ']';
}

}  // namespace

int main() try {
  // The end of the year 9999: no timestamp is in the future.
  constexpr kavach::WallMicros kNow = 253'402'300'800 * kavach::kMicrosPerSecond;
  kavach::http::BatchParser parser({.batch_events_max = 1000});
  kavach::Batch batch;
  std::string arena;
  char kind = 0;
  while (read_exactly(&kind, 1)) {
    std::array<unsigned char, 4> prefix{};
    if (!read_exactly(prefix.data(), prefix.size())) return 1;
    std::size_t size = 0;
    for (std::size_t i = prefix.size(); i-- > 0;) size = size << 8 | prefix[i];
    kavach::PaddedBuffer body(size);
    body.resize(size);
    if (!read_exactly(body.data(), size)) return 1;

    kavach::http::Refusal refusal;
    const bool taken = parser.parse(body.view(), kind == 'j', kNow, batch, arena, refusal);
    const std::string answer = taken ? describe(batch) : refusal.body;
    write_number<2>(taken ? 202U : static_cast<std::size_t>(refusal.status));
    write_number<4>(answer.size());
    std::fwrite(answer.data(), 1, answer.size(), stdout);
    std::fflush(stdout);
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "parse_probe: %s\n", error.what());
  return 1;
}
