#include "bench/support/sample.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <tuple>

#include "engine/check.h"
#include "engine/ids.h"

namespace kavach::bench {
namespace {

// The digits of a key that carry its number: the last twelve.
constexpr std::size_t kSerialOffset = 24;
constexpr int kSerialDigits = 12;
constexpr std::string_view kKeyName = "\"idempotency_key\": \"";

Uuid random_uuid4(Random& random) {
  Uuid id;
  for (std::uint8_t& byte : id.bytes) byte = static_cast<std::uint8_t>(random.next());
  id.bytes[6] = static_cast<std::uint8_t>((id.bytes[6] & 0x0f) | 0x40);
  id.bytes[8] = static_cast<std::uint8_t>((id.bytes[8] & 0x3f) | 0x80);
  return id;
}

}  // namespace

SampleBatch make_batch(std::uint32_t events, std::uint64_t seed) {
  static constexpr std::array<std::pair<const char*, const char*>, 4> kModels{
      {{"gpt-4o", "openai"},
       {"claude-sonnet-4", "anthropic"},
       {"gemini-2.5-pro", "google"},
       {"mistral-large", "mistral"}}};
  Random random(seed);
  const auto below = [&random](std::uint64_t bound) { return random.next() % bound; };
  SampleBatch batch;
  std::tie(batch.model, batch.provider) = kModels[below(kModels.size())];
  batch.agent = fmt::format("agent-{}", below(1000));
  batch.run = random_uuid4(random).text();
  for (std::uint32_t i = 0; i < events; ++i) {
    SampleEvent& event = batch.events.emplace_back();
    event.input_tokens = 50 + below(8000);
    event.output_tokens = 10 + below(2000);
    event.cost_nano = event.input_tokens * 2500 + event.output_tokens * 10'000;
    event.duration_ms = 200 + below(9000);
    event.minute = below(60);
    event.second = below(60);
    event.micros = below(1'000'000);
    event.idempotency_key = random_uuid4(random).text();
  }
  return batch;
}

SampleBody make_sample(std::uint32_t events, std::uint64_t seed, MemberOrder order) {
  const SampleBatch batch = make_batch(events, seed);
  Random random(seed);
  SampleBody body;
  body.text = R"({"events": [)";
  for (const SampleEvent& event : batch.events) {
    std::array members{
        fmt::format(R"("agent_name": "{}")", batch.agent),
        fmt::format(R"("model": "{}")", batch.model),
        fmt::format(R"("provider": "{}")", batch.provider),
        fmt::format(R"("input_tokens": {})", event.input_tokens),
        fmt::format(R"("output_tokens": {})", event.output_tokens),
        fmt::format(R"("cost": 0.{:09})", event.cost_nano),
        fmt::format(R"("duration_ms": {})", event.duration_ms),
        fmt::format(R"("timestamp": "2026-05-25T14:{:02}:{:02}.{:06}+00:00")", event.minute, event.second,
                    event.micros),
        fmt::format(R"({}{}")", kKeyName, event.idempotency_key),
        fmt::format(R"("run_id": "{}")", batch.run),
        std::string(R"("status": "success")"),
    };
    if (order == MemberOrder::kShuffled) {
      for (std::size_t k = members.size() - 1; k > 0; --k) {
        std::swap(members[k], members[random.next() % (k + 1)]);
      }
    }
    body.text += &event == batch.events.data() ? "{" : ", {";
    for (std::size_t k = 0; k < members.size(); ++k) {
      if (k > 0) body.text += ", ";
      if (members[k].starts_with(kKeyName)) body.key_offsets.push_back(body.text.size() + kKeyName.size());
      body.text += members[k];
    }
    body.text += "}";
  }
  body.text += "]}";
  return body;
}

void stamp_keys(char* body, const std::vector<std::size_t>& key_offsets, std::uint64_t& serial) noexcept {
  for (const std::size_t offset : key_offsets) {
    std::uint64_t rest = serial++;
    char* digit = body + offset + kSerialOffset + kSerialDigits;
    for (int i = 0; i < kSerialDigits; ++i) {
      *--digit = "0123456789abcdef"[rest & 15];
      rest >>= 4;
    }
  }
}

std::string gzip(std::string_view text) {
  constexpr int kWindowBitsOfGzip = 15 + 16;
  constexpr int kMemoryLevel = 8;
  z_stream stream{};
  KAVACH_CHECK(deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, kWindowBitsOfGzip, kMemoryLevel,
                            Z_DEFAULT_STRATEGY) == Z_OK,
               "no memory for zlib");
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  KAVACH_CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END, "deflateBound() is an upper bound");
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

PaddedBuffer padded(std::string_view text) {
  PaddedBuffer buffer(text.size());
  buffer.append(text);
  return buffer;
}

}  // namespace kavach::bench
