// A reconciliation's report, for people and for scripts.
#include <fmt/format.h>

#include <algorithm>

#include "engine/timestamp.h"
#include "sink/reconcile/reconcile.h"

namespace kavach::sink {
namespace {

struct Column {
  std::string_view title;
  std::string_view name;  // in JSON
  std::uint64_t OrgCounts::*number;
  bool needs_topic = false;
  bool needs_store = false;
};

constexpr Column kColumns[] = {
    {"journal", "journal", &OrgCounts::in_journal},
    {"topic", "topic", &OrgCounts::in_topic, true},
    {"store", "store", &OrgCounts::in_store, false, true},
    {"on its way", "on_its_way", &OrgCounts::on_its_way},
    {"duplicate dropped", "duplicates_dropped", &OrgCounts::duplicates_dropped, false, true},
    {"dead letter", "dead_letters", &OrgCounts::dead_letters, true, true},
    {"past retention", "past_retention", &OrgCounts::past_retention},
    {"repeated in the topic", "repeated_in_topic", &OrgCounts::repeated_in_topic, true},
    {"missing in the topic", "missing_in_topic", &OrgCounts::missing_in_topic, true},
    {"missing in the store", "missing_in_store", &OrgCounts::missing_in_store, false, true},
    {"doubled in the store", "doubled_in_store", &OrgCounts::doubled_in_store, false, true},
};

constexpr std::string_view kOrgTitle = "organization";
constexpr int kUuidChars = 36;

bool applies(const Column& column, const Report& report) {
  return (!column.needs_topic || report.has_topic) && (!column.needs_store || report.has_store);
}

std::string row(std::string_view name, const OrgCounts& counts, const Report& report) {
  std::string line = fmt::format("{:<{}}", name, kUuidChars);
  for (const Column& column : kColumns) {
    if (applies(column, report)) line += fmt::format("  {:>{}}", counts.*column.number, column.title.size());
  }
  return line + "\n";
}

std::string_view name_of(Finding::Kind kind) {
  switch (kind) {
    case Finding::Kind::kMissingInTopic:
      return "missing_in_topic";
    case Finding::Kind::kMissingInStore:
      return "missing_in_store";
    case Finding::Kind::kDoubledInStore:
      return "doubled_in_store";
    case Finding::Kind::kDeadLetter:
      return "dead_letter";
  }
  return "";
}

std::string_view words_of(Finding::Kind kind) {
  switch (kind) {
    case Finding::Kind::kMissingInTopic:
      return "missing in the topic";
    case Finding::Kind::kMissingInStore:
      return "missing in the store";
    case Finding::Kind::kDoubledInStore:
      return "doubled in the store";
    case Finding::Kind::kDeadLetter:
      return "dead letter";
  }
  return "";
}

std::string text_of(const UsageSum& sum) {
  return fmt::format("{} events, {} nano-USD, {} input and {} output tokens", sum.events, sum.cost,
                     sum.input_tokens, sum.output_tokens);
}

std::string json_of(const UsageSum& sum) {
  return fmt::format(R"({{"events":{},"cost_nano":{},"input_tokens":{},"output_tokens":{}}})", sum.events,
                     sum.cost, sum.input_tokens, sum.output_tokens);
}

// Empty when there is nothing to say.
std::string remark(std::string_view what, std::uint64_t count) {
  return count == 0 ? "" : fmt::format("{}: {}\n", what, count);
}

std::string verdict(const Report& report) {
  if (report.is_clean()) return "clean";
  std::string line =
      fmt::format("{} missing, {} doubled", report.total.missing(), report.total.doubled_in_store);
  if (report.roll_ups_differ > 0)
    line += fmt::format(", organizations whose roll-ups differ: {}", report.roll_ups_differ);
  if (report.damaged_frames > 0) line += fmt::format(", damaged frames: {}", report.damaged_frames);
  return line;
}

std::string json_counts(const OrgCounts& counts, const Report& report) {
  std::string fields;
  for (const Column& column : kColumns) {
    fields += fmt::format(R"({}"{}":{})", fields.empty() ? "" : ",", column.name,
                          applies(column, report) ? std::to_string(counts.*column.number) : "null");
  }
  return fields;
}

}  // namespace

std::string report_text(const Report& report) {
  std::string text =
      fmt::format("events accepted from {} to {}\n\n{:<{}}", format_timestamp(report.period.since),
                  format_timestamp(report.period.until), kOrgTitle, kUuidChars);
  for (const Column& column : kColumns) {
    if (applies(column, report)) text += fmt::format("  {}", column.title);
  }
  text += "\n";
  for (const OrgReport& org : report.orgs) text += row(org.org_id.text(), org.counts, report);
  text += row("all", report.total, report) + "\n";

  for (const Finding& finding : report.findings) {
    text += fmt::format("{}: event {} of {}\n", words_of(finding.kind), finding.event_id.text(),
                        finding.org_id.text());
  }
  for (const OrgReport& org : report.orgs) {
    if (!org.roll_ups) continue;
    text +=
        fmt::format("roll-ups of {}:\n  events           {}\n  usage_hourly     {}\n  usage_hourly_dim {}\n",
                    org.org_id.text(), text_of(org.roll_ups->events), text_of(org.roll_ups->hourly),
                    text_of(org.roll_ups->by_dimension));
  }
  text += remark("records of the topic that cannot be decoded", report.unreadable_records);
  text += remark("dead letters that cannot be decoded", report.unreadable_letters);
  text += remark("damaged frames that were not carried on (see journal inspect)", report.damaged_frames);
  text += remark("missing events that were not looked up, some may be dropped duplicates", report.unchecked);
  return text + verdict(report) + "\n";
}

std::string report_json(const Report& report) {
  std::string orgs;
  for (const OrgReport& org : report.orgs) {
    orgs += fmt::format(R"({}{{"org_id":"{}",{},"roll_ups":)", orgs.empty() ? "" : ",", org.org_id.text(),
                        json_counts(org.counts, report));
    orgs += org.roll_ups ? fmt::format(R"({{"events":{},"usage_hourly":{},"usage_hourly_dim":{}}}}})",
                                       json_of(org.roll_ups->events), json_of(org.roll_ups->hourly),
                                       json_of(org.roll_ups->by_dimension))
                         : "null}";
  }
  std::string findings;
  for (const Finding& finding : report.findings) {
    findings += fmt::format(R"({}{{"kind":"{}","org_id":"{}","event_id":"{}"}})", findings.empty() ? "" : ",",
                            name_of(finding.kind), finding.org_id.text(), finding.event_id.text());
  }
  return fmt::format(
      R"({{"since":"{}","until":"{}","clean":{},"missing":{},"doubled":{},"roll_ups_differ":{},)"
      R"("unreadable_records":{},"unreadable_letters":{},"damaged_frames":{},"unchecked":{},)"
      R"("total":{{{}}},"organizations":[{}],"findings":[{}]}})",
      format_timestamp(report.period.since), format_timestamp(report.period.until), report.is_clean(),
      report.total.missing(), report.total.doubled_in_store, report.roll_ups_differ,
      report.unreadable_records, report.unreadable_letters, report.damaged_frames, report.unchecked,
      json_counts(report.total, report), orgs, findings);
}

}  // namespace kavach::sink
