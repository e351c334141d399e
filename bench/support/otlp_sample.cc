#include "bench/support/otlp_sample.h"

#include <bit>
#include <chrono>
#include <string>
#include <string_view>

namespace kavach::bench {
namespace {

// When the hour of a sample's events begins: that of the JSON sample.
constexpr std::chrono::sys_time<std::chrono::nanoseconds> kHour =
    std::chrono::sys_days{std::chrono::year{2026} / 5 / 25} + std::chrono::hours{14};

enum WireType : std::uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2 };

void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

void put_tag(std::string& out, std::uint32_t field, WireType type) {
  put_varint(out, field << 3 | type);
}

void put_int(std::string& out, std::uint32_t field, std::uint64_t value) {
  put_tag(out, field, kVarint);
  put_varint(out, value);
}

void put_fixed64(std::string& out, std::uint32_t field, std::uint64_t value) {
  put_tag(out, field, kFixed64);
  for (int i = 0; i < 8; ++i) out += static_cast<char>(value >> 8 * i);
}

// A string or a message.
void put_bytes(std::string& out, std::uint32_t field, std::string_view bytes) {
  put_tag(out, field, kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

// Field numbers are those of opentelemetry/proto/{common,resource,logs}/v1 and collector/logs/v1.
void put_attribute(std::string& out, std::uint32_t field, std::string_view key, std::string_view any_value) {
  std::string attribute;
  put_bytes(attribute, 1, key);
  put_bytes(attribute, 2, any_value);
  put_bytes(out, field, attribute);
}

std::string text_value(std::string_view text) {
  std::string value;
  put_bytes(value, 1, text);
  return value;
}

std::string int_value(std::uint64_t number) {
  std::string value;
  put_int(value, 3, number);
  return value;
}

std::string double_value(double number) {
  std::string value;
  put_fixed64(value, 4, std::bit_cast<std::uint64_t>(number));
  return value;
}

std::string log_record(const SampleBatch& batch, const SampleEvent& event) {
  constexpr std::uint32_t kAttributes = 6;
  const auto time = kHour + std::chrono::minutes(event.minute) + std::chrono::seconds(event.second) +
                    std::chrono::microseconds(event.micros);
  std::string record;
  put_fixed64(record, 1, static_cast<std::uint64_t>(time.time_since_epoch().count()));
  put_attribute(record, kAttributes, "model", text_value(batch.model));
  put_attribute(record, kAttributes, "provider", text_value(batch.provider));
  put_attribute(record, kAttributes, "input_tokens", int_value(event.input_tokens));
  put_attribute(record, kAttributes, "output_tokens", int_value(event.output_tokens));
  put_attribute(record, kAttributes, "cost", double_value(static_cast<double>(event.cost_nano) / 1e9));
  put_attribute(record, kAttributes, "duration_ms", int_value(event.duration_ms));
  put_attribute(record, kAttributes, "idempotency_key", text_value(event.idempotency_key));
  put_attribute(record, kAttributes, "run_id", text_value(batch.run));
  put_attribute(record, kAttributes, "status", text_value("success"));
  return record;
}

}  // namespace

SampleBody make_otlp_sample(std::uint32_t events, std::uint64_t seed) {
  const SampleBatch batch = make_batch(events, seed);
  std::string scope_logs;
  for (const SampleEvent& event : batch.events) put_bytes(scope_logs, 2, log_record(batch, event));
  std::string resource;
  put_attribute(resource, 1, "service.name", text_value(batch.agent));
  std::string resource_logs;
  put_bytes(resource_logs, 1, resource);
  put_bytes(resource_logs, 2, scope_logs);
  SampleBody body;
  put_bytes(body.text, 1, resource_logs);
  std::size_t from = 0;
  for (const SampleEvent& event : batch.events) {
    from = body.text.find(event.idempotency_key, from);
    body.key_offsets.push_back(from);
  }
  return body;
}

}  // namespace kavach::bench
