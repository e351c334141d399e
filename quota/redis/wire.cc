#include "quota/redis/wire.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "engine/calendar.h"
#include "engine/timestamp.h"
#include "quota/redis/scripts.h"

namespace kavach::quota {
namespace {

// Lua's numbers are exact so far; no day's count comes near it.
constexpr std::int64_t kExactMax = std::int64_t{1} << 53;
constexpr std::array<std::int64_t, kBudgetPeriods> kSpendSeconds{3 * 86'400, 40 * 86'400, 400 * 86'400};
// In the order of the script's answer.
enum : std::size_t {
  kStatus,
  kBoot,
  kSeq,
  kDay,
  kDayLeft,
  kEpoch,
  kShortAnswer,
  kCeiling = kShortAnswer,
  kCharged,
  kHeldElsewhere,
  kHungry,
  kLearning,
  kBurstGranted,
  kBurstSecond,
  kBurstLeft,
  kBurstWait,
  kOthers,
  kUsage,
  kWholeAnswer
};

std::int64_t exact(std::int64_t count) noexcept {
  return std::clamp(count, -kExactMax, kExactMax);
}

std::int64_t limit_on_wire(std::int64_t limit) noexcept {
  return limit == kUnlimited ? -1 : exact(limit);
}

// The period's own part of its key.
std::string period_name(std::size_t period, std::int64_t number) {
  switch (static_cast<BudgetPeriod>(period)) {
    case BudgetPeriod::kDaily:
      return "daily:" + format_timestamp(start_of_day(number)).substr(0, 10);
    case BudgetPeriod::kMonthly:
      return "monthly:" + format_timestamp(start_of_month(number)).substr(0, 7);
    case BudgetPeriod::kTotal:
      return "total";
  }
  return {};
}

// A ledger that has not begun a period yet has nothing to say of it.
bool is_begun(std::int64_t number) noexcept {
  return number >= 0;
}

std::string usage_text(const Usage& usage) {
  return fmt::format("{} {} {} {} {}", usage.events, usage.cost, usage.input_tokens, usage.output_tokens,
                     usage.duration_ms);
}

// What a later version may have added is not read.
std::optional<Usage> parse_usage(std::string_view text) {
  Usage usage;
  for (std::int64_t* number :
       {&usage.events, &usage.cost, &usage.input_tokens, &usage.output_tokens, &usage.duration_ms}) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
    if (error != std::errc()) return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    if (text.starts_with(' ')) text.remove_prefix(1);
  }
  return usage;
}

std::optional<NodeId> parse_node(const RedisReply& name) {
  NodeId node = 0;
  const char* const end = name.text.data() + name.text.size();
  const auto [stop, error] = std::from_chars(name.text.data(), end, node);
  if (error != std::errc() || stop != end) return std::nullopt;
  return node;
}

bool are_integers(const RedisReply& reply, std::size_t first, std::size_t last) {
  if (reply.elements.size() < last) return false;
  return std::all_of(reply.elements.begin() + static_cast<std::ptrdiff_t>(first),
                     reply.elements.begin() + static_cast<std::ptrdiff_t>(last),
                     [](const RedisReply& one) { return one.kind == RedisReply::Kind::kInteger; });
}

std::optional<NodeRecord> parse_record(const RedisReply& reply) {
  if (reply.elements.size() != 6 || !are_integers(reply, 1, 6)) return std::nullopt;
  const auto node = parse_node(reply.elements[0]);
  if (!node) return std::nullopt;
  NodeRecord record;
  record.node = *node;
  record.boot = static_cast<std::uint64_t>(reply.elements[1].integer);
  record.seq = static_cast<std::uint64_t>(reply.elements[2].integer);
  record.spent = reply.elements[3].integer;
  record.held = reply.elements[4].integer;
  record.expires = reply.elements[5].integer;
  return record;
}

// One period's rows: node, usage, node, usage, ...
bool add_rows(const RedisReply& rows, NodeId but, Usage& sum) {
  if (rows.elements.size() % 2 != 0) return false;
  for (std::size_t i = 0; i < rows.elements.size(); i += 2) {
    const auto node = parse_node(rows.elements[i]);
    const auto usage = parse_usage(rows.elements[i + 1].text);
    if (!node || !usage) return false;
    if (*node != but) sum += *usage;
  }
  return true;
}

}  // namespace

std::string RedisWire::key(std::string_view kind, const Uuid& org, std::string_view rest) const {
  return fmt::format("{}{}:{{{}}}{}{}", options_.prefix, kind, org.text(), rest.empty() ? "" : ":", rest);
}

// Of both scripts: the time, in production Redis's own, and which run of the server is meant.
void RedisWire::begin(RedisCommand& command) const {
  if (test_clock_) {
    command.add(*test_clock_);
  } else {
    command.add("");
  }
  command.add(run_id_).add(options_.learn_us);
}

std::string RedisWire::renew_command(const Uuid& org, const RenewRequest& request) const {
  const auto is_sent = [&](std::size_t period) {
    return request.has_usage && is_begun(request.periods[period]);
  };
  std::int64_t keys = 3;
  for (std::size_t i = 0; i < kBudgetPeriods; ++i) keys += is_sent(i) ? 1 : 0;

  RedisCommand command;
  command.add("EVALSHA").add(renew_script().sha1).add(keys);
  command.add(options_.prefix + "epoch").add(key("rl", org, "daily")).add(key("rl", org, "burst"));
  for (std::size_t i = 0; i < kBudgetPeriods; ++i) {
    if (is_sent(i)) command.add(key("spend", org, period_name(i, request.periods[i])));
  }
  begin(command);
  command.add_unsigned(request.node).add_unsigned(request.boot).add_unsigned(request.seq);
  command.add(request.lease_us).add(options_.fleet.hungry_us).add(options_.fleet.burst_slack_s);
  command.add(request.day)
      .add(exact(request.spent))
      .add(exact(request.keep))
      .add(exact(request.need))
      .add(exact(request.need_min));
  command.add(exact(request.want)).add(limit_on_wire(request.limit));
  command.add(exact(request.burst_want)).add(limit_on_wire(request.burst_limit));
  command.add(exact(request.burst_unused)).add(request.burst_unused_second);
  for (std::size_t i = 0; i < kBudgetPeriods; ++i) {
    if (is_sent(i)) command.add(usage_text(request.usage[i])).add(kSpendSeconds[i]);
  }
  for (const NodeRecord& heard : request.hearsay) {
    command.add_unsigned(heard.node).add_unsigned(heard.boot).add_unsigned(heard.seq);
    command.add(exact(heard.spent)).add(exact(heard.held)).add(heard.expires);
  }
  return command.bytes();
}

std::optional<RenewReply> RedisWire::renew_reply(const Asked& asked, const RedisReply& reply) {
  const auto& fields = reply.elements;
  if (!are_integers(reply, 0, kShortAnswer)) return std::nullopt;
  RenewReply result;
  const std::int64_t status = fields[kStatus].integer;
  if (status < 0 || status > static_cast<std::int64_t>(RenewReply::Status::kOtherDay)) return std::nullopt;
  result.status = static_cast<RenewReply::Status>(status);
  result.boot = static_cast<std::uint64_t>(fields[kBoot].integer);
  result.seq = static_cast<std::uint64_t>(fields[kSeq].integer);
  result.day = fields[kDay].integer;
  result.day_left_us = fields[kDayLeft].integer;
  result.epoch = static_cast<std::uint64_t>(fields[kEpoch].integer);
  if (result.seq != asked.seq) return std::nullopt;
  if (result.status != RenewReply::Status::kGranted) return result;

  if (fields.size() != kWholeAnswer || !are_integers(reply, kCeiling, kOthers)) return std::nullopt;
  result.ceiling = fields[kCeiling].integer;
  result.charged = fields[kCharged].integer;
  result.held_elsewhere = fields[kHeldElsewhere].integer;
  result.hungry = fields[kHungry].integer != 0;
  result.learning = fields[kLearning].integer != 0;
  result.burst_granted = fields[kBurstGranted].integer;
  result.burst_second = fields[kBurstSecond].integer;
  result.burst_left = fields[kBurstLeft].integer < 0 ? kUnlimited : fields[kBurstLeft].integer;
  result.burst_wait_us = fields[kBurstWait].integer;
  for (const RedisReply& other : fields[kOthers].elements) {
    const auto record = parse_record(other);
    if (!record) return std::nullopt;
    result.others.push_back(*record);
  }
  if (!asked.has_usage) return result;
  result.periods = asked.periods;
  std::size_t rows = 0;
  for (std::size_t i = 0; i < kBudgetPeriods; ++i) {
    if (!is_begun(asked.periods[i])) continue;
    if (rows == fields[kUsage].elements.size()) return std::nullopt;
    if (!add_rows(fields[kUsage].elements[rows++], asked.node, result.others_usage[i])) return std::nullopt;
  }
  return result;
}

std::string RedisWire::agents_command(const Uuid& org, const AgentsRequest& request, std::size_t first,
                                      std::size_t count) const {
  RedisCommand command;
  command.add("EVALSHA").add(agents_script().sha1).add(std::int64_t{2});
  command.add(options_.prefix + "epoch").add(key("agents", org, ""));
  begin(command);
  command.add(limit_on_wire(request.agents_max)).add(request.restate ? "1" : "0");
  for (std::size_t i = first; i < first + count; ++i) {
    command.add_unsigned(request.fingerprints[i]);
    command.add(request.ages_s.empty() ? 0 : request.ages_s[i] * kMicrosPerSecond);
  }
  return command.bytes();
}

bool RedisWire::agents_reply(std::span<const std::uint64_t> fingerprints, const RedisReply& reply,
                             AgentsReply& result) {
  if (reply.elements.size() != 3 || !are_integers(reply, 0, 2)) return false;
  const std::string& places = reply.elements[2].text;
  if (places.size() != fingerprints.size()) return false;
  result.learning = reply.elements[0].integer != 0;
  result.epoch = static_cast<std::uint64_t>(reply.elements[1].integer);
  for (std::size_t i = 0; i < places.size(); ++i) {
    if (places[i] == '1') result.admitted.push_back(fingerprints[i]);
  }
  return true;
}

}  // namespace kavach::quota
