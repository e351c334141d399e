#include "http/alerts/messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>

#include "engine/check.h"
#include "engine/timestamp.h"
#include "http/outbound/hmac.h"
#include "http/outbound/json_text.h"
#include "http/outbound/percent_code.h"

namespace kavach::http {
namespace {

// In characters. Slack refuses longer headers and URLs, and cuts longer texts of a message.
constexpr std::size_t kSlackHeaderMax = 150;
constexpr std::size_t kSlackTextMax = 4'000;
constexpr std::size_t kSlackUrlMax = 3'000;
// PagerDuty refuses longer ones.
constexpr std::size_t kPagerDutySummaryMax = 1'024;
// What a list of mails still shows.
constexpr std::size_t kSubjectMax = 255;
// Where no channel sets a limit; four times what ingest takes as a name.
constexpr std::size_t kNameMax = 1'024;

// --- numbers -----------------------------------------------------------------------------------------------

std::string money(double usd) {
  const double size = std::abs(usd);
  if (!(size > 0)) return "$0.00";
  const int decimals = size >= 1 ? 2 : size >= 0.01 ? 4 : size >= 0.0001 ? 6 : 8;
  return fmt::format("${:.{}f}", usd, decimals);
}

std::string duration(double ms) {
  if (!(ms > 0)) return "0ms";
  if (ms < 1'000) return fmt::format("{:.0f}ms", ms);
  const double seconds = ms / 1'000;
  if (seconds < 60) return fmt::format("{:.1f}s", seconds);
  const double minutes = std::floor(seconds / 60);
  if (minutes < 60) return fmt::format("{:.0f}m {:.0f}s", minutes, std::fmod(seconds, 60));
  return fmt::format("{:.0f}h {:.0f}m", std::floor(minutes / 60), std::fmod(minutes, 60));
}

std::string count(double number) {
  std::string digits = fmt::format("{:.0f}", number);
  for (std::size_t end = digits.size(); end > 3; end -= 3) digits.insert(end - 3, 1, ',');
  return digits;
}

std::string amount(double value, std::string_view budget_type) {
  if (budget_type == "cost") return money(value);
  return budget_type == "duration" ? duration(value) : count(value);
}

// --- texts -------------------------------------------------------------------------------------------------

std::string label_of(std::string_view budget_type) {
  if (budget_type == "cost") return "Cost";
  if (budget_type == "tokens_total") return "Tokens (total)";
  if (budget_type == "tokens_input") return "Tokens (input)";
  if (budget_type == "tokens_output") return "Tokens (output)";
  if (budget_type == "calls") return "API Calls";
  if (budget_type == "duration") return "Duration";
  if (budget_type == "loops") return "Loops";
  return std::string(budget_type);
}

bool continues_character(char c) {
  return (static_cast<unsigned char>(c) & 0xC0U) == 0x80;
}

std::size_t characters_of(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return !continues_character(c); }));
}

// At most `max` characters of `text`, which is UTF-8; the last one says that there were more.
std::string shortened(const std::string& text, std::size_t max) {
  std::size_t seen = 0, end = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (continues_character(text[i])) continue;
    if (++seen == max) end = i;
  }
  return seen <= max ? text : text.substr(0, end) + "…";
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// Slack takes '&', '<' and '>' for its own, and shows a quote's entity as it is.
std::string mrkdwn(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == '"' ? std::string(1, c) : escaped({&c, 1});
  return out;
}

// The words of a breach that channels share.
struct Words {
  bool is_of_org;
  std::string name, pct, used, limit, remaining, type, level, severity, resets;
  std::string period;

  explicit Words(const Breach& breach)
      : is_of_org(breach.agent_name.empty()),
        name(valid_utf8(!is_of_org                ? breach.agent_name
                        : breach.org_name.empty() ? "All agents"
                                                  : breach.org_name)),
        pct(fmt::format("{:.0f}", breach.threshold * 100)),
        used(amount(breach.used, breach.budget_type)),
        limit(amount(breach.limit, breach.budget_type)),
        remaining(amount(std::max(0.0, breach.limit - breach.used), breach.budget_type)),
        type(label_of(breach.budget_type)),
        level(alert_level(breach.threshold)),
        severity(breach.threshold >= 1     ? "critical"
                 : breach.threshold >= 0.9 ? "error"
                                           : "warning"),
        resets(breach.resets_at == 0      ? "never"
               : breach.period == "daily" ? "midnight UTC"
                                          : format_timestamp(breach.resets_at).substr(0, 10) + " UTC"),
        period(breach.period) {}

  // What was crossed: " at 80% of $50.00 daily Cost limit".
  std::string crossing() const { return fmt::format(" at {}% of {} {} {} limit", pct, limit, period, type); }
  // `before`, the name and `after`, the name cut so that all is at most `max` characters.
  std::string around_name(const std::string& before, const std::string& after, std::size_t max) const {
    return before + shortened(name, max - characters_of(before) - characters_of(after)) + after;
  }
};

std::string page_of(const Breach& breach, std::string_view dashboard_url,
                    std::optional<std::size_t> max = {}) {
  const std::string all = std::string(dashboard_url) + "/dashboard";
  if (breach.agent_name.empty()) return all;
  std::string page = all + "/agents/" + percent_encode(breach.agent_name);
  return max && page.size() > *max ? all : page;
}

}  // namespace

std::string_view alert_level(double threshold) noexcept {
  return threshold >= 1 ? "CRITICAL" : threshold >= 0.9 ? "ALERT" : "WARN";
}

std::string alert_summary(const Breach& breach) {
  const Words words(breach);
  return words.around_name("", words.crossing(), kNameMax);
}

std::string slack_json(const Breach& breach, std::string_view dashboard_url) {
  const Words words(breach);
  const std::string text = words.around_name("⚠️ AgentKavach: ", words.crossing(), kSlackTextMax);
  const std::string header =
      words.around_name(fmt::format("[{}] ", words.level),
                        fmt::format(" — {}% of {} limit", words.pct, words.type), kSlackHeaderMax);
  const std::string lines =
      fmt::format("*Type:* {}\n*Current:* {} / {}\n*Remaining:* {}\n*Period:* {} (resets {})", words.type,
                  words.used, words.limit, words.remaining, words.period, words.resets);
  return fmt::format(
      R"({{"text":{},"blocks":[{{"type":"header","text":{{"type":"plain_text","text":{}}}}},)"
      R"({{"type":"section","text":{{"type":"mrkdwn","text":{}}}}},)"
      R"({{"type":"actions","elements":[{{"type":"button","text":{{"type":"plain_text","text":"View Dashboard →"}},)"
      R"("url":{}}}]}}]}})",
      json_string(mrkdwn(text)), json_string(header), json_string(mrkdwn(lines)),
      json_string(page_of(breach, dashboard_url, kSlackUrlMax)));
}

std::string pagerduty_json(const Breach& breach) {
  const Words words(breach);
  const std::string summary = words.around_name(
      "AgentKavach: ", fmt::format(" at {}% — {}/{} ({})", words.pct, words.used, words.limit, words.type),
      kPagerDutySummaryMax);
  return fmt::format(
      R"({{"event_action":"trigger","payload":{{"summary":{},"severity":{},"source":"agentkavach",)"
      R"("custom_details":{{"agent":{},"type":{},"current":{},"limit":{},"period":{},"remaining":{}}}}}}})",
      json_string(summary), json_string(words.severity), json_string(shortened(words.name, kNameMax)),
      json_string(words.type), json_string(words.used), json_string(words.limit), json_string(words.period),
      json_string(words.remaining));
}

std::string with_routing_key(std::string_view body, std::string_view routing_key) {
  KAVACH_CHECK(body.starts_with('{'), "a message to PagerDuty is an object");
  return fmt::format(R"({{"routing_key":{},{})", json_string(routing_key), body.substr(1));
}

std::string webhook_json(const Breach& breach) {
  const Words words(breach);
  return fmt::format(
      R"({{"agent":{},"budget_type":{},"current":{},"event":"threshold.breach","level":{},"limit":{},"pct":{},)"
      R"("period":{},"remaining":{},"timestamp":{}}})",
      words.is_of_org ? "null" : json_string(shortened(words.name, kNameMax)), json_string(words.type),
      json_string(words.used), json_string(words.level), json_string(words.limit), json_string(words.pct),
      json_string(words.period), json_string(words.remaining),
      json_string(format_timestamp(breach.fired_at)));
}

std::string announcement_json(const Breach& breach, std::string_view org_id, std::string_view channel,
                              std::string_view period_key) {
  return fmt::format(
      R"({{"event":"threshold.breach","org_id":{},"agent_name":{},"channel":{},"threshold":{},"level":{},)"
      R"("budget_type":{},"period":{},"period_key":{},"current":{},"limit":{},"timestamp":{}}})",
      json_string(org_id), breach.agent_name.empty() ? "null" : json_string(breach.agent_name),
      json_string(channel), breach.threshold, json_string(alert_level(breach.threshold)),
      json_string(breach.budget_type), json_string(breach.period), json_string(period_key), breach.used,
      breach.limit, json_string(format_timestamp(breach.fired_at)));
}

std::array<HttpHeader, 2> webhook_signature(std::string_view secret, std::int64_t unix_seconds,
                                            std::string_view body) {
  return {{{"X-AgentKavach-Signature", "sha256=" + hmac_sha256_hex(secret, body)},
           {"X-AgentKavach-Timestamp", fmt::format("{}", unix_seconds)}}};
}

Mail alert_mail(const Breach& breach, std::string_view dashboard_url) {
  const Words words(breach);
  const std::string page = page_of(breach, dashboard_url);
  const std::string name = shortened(words.name, kNameMax);
  const std::string_view kind = words.is_of_org ? "organization" : "agent";
  constexpr std::string_view kLine = "border-bottom: 1px solid #e5e7eb; ";
  constexpr std::string_view kNumber = "font-weight: 600; color: #111827;";
  constexpr std::string_view kWord = "color: #374151;";
  const auto row = [](std::string_view line, std::string_view title, std::string_view style,
                      std::string_view value) {
    return fmt::format(
        "<tr><td style=\"padding: 10px 12px; {0}color: #6b7280;\">{1}</td>"
        "<td style=\"padding: 10px 12px; {0}text-align: right; {2}\">{3}</td></tr>",
        line, title, style, escaped(value));
  };
  return {
      .id = {},
      .to = {},
      .subject = words.around_name(fmt::format("[{}] ", words.level),
                                   fmt::format(" — {}% of {} budget", words.pct, words.type), kSubjectMax),
      .text = fmt::format("{} \"{}\" has crossed the {}% threshold on {}.\n\n"
                          "  Current:    {}\n  Limit:      {}\n  Remaining:  {}\n  Period:     {}\n"
                          "  Resets:     {}\n\nView details: {}",
                          words.is_of_org ? "Organization" : "Agent", name, words.pct, words.type, words.used,
                          words.limit, words.remaining, words.period, words.resets, page),
      .html = fmt::format(
          "<div style=\"font-family: -apple-system, BlinkMacSystemFont, 'Segoe UI', Helvetica, Arial, "
          "sans-serif; "
          "max-width: 560px; margin: 0 auto; padding: 24px; color: #1f2937;\">"
          "<h2 style=\"margin: 0 0 8px 0; color: #b45309; font-size: 20px;\">&#9888;&#65039; {0} &mdash; "
          "{1}</h2>"
          "<p style=\"margin: 0 0 20px 0; color: #4b5563; line-height: 1.5;\">Your {2} <strong>{1}</strong> "
          "has "
          "crossed the <strong>{3}%</strong> threshold on <strong>{4}</strong>.</p>"
          "<table style=\"border-collapse: collapse; width: 100%; margin: 0 0 24px 0; font-size: "
          "14px;\">{5}</table>"
          "<a href=\"{6}\" style=\"display: inline-block; padding: 10px 20px; background: #2563eb; color: "
          "#ffffff; "
          "text-decoration: none; border-radius: 6px; font-weight: 500;\">View Dashboard &rarr;</a></div>",
          words.level, escaped(name), kind, words.pct, escaped(words.type),
          row(kLine, "Current", kNumber, words.used) + row(kLine, "Limit", kNumber, words.limit) +
              row(kLine, "Remaining", kNumber, words.remaining) + row(kLine, "Period", kWord, words.period) +
              row(kLine, "Resets", kWord, words.resets) + row("", "Metric", kWord, words.type),
          escaped(page))};
}

}  // namespace kavach::http
