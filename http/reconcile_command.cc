#include "http/reconcile_command.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "engine/calendar.h"
#include "engine/timestamp.h"
#include "http/backends.h"
#include "sink/kafka/shipper.h"
#include "sink/reconcile/journal_directory.h"
#include "sink/reconcile/kafka_topic.h"
#include "sink/reconcile/reconcile.h"
#include "sink/store/audit.h"

namespace kavach::http {
namespace {

// Postgres says nothing while it adds up hours.
constexpr std::int64_t kStoreTimeoutMs = 600'000;

sink::StoreResult<std::unique_ptr<sink::StoreAudit>> open_audit(const Config& config) {
  if (config.store.kind == "postgres") {
    return sink::audit_postgres(config.store.url, std::max(kStoreTimeoutMs, config.store.reply_timeout_ms));
  }
  return sink::audit_sqlite(config.store.path);
}

Result<sink::Period> period_of(const ReconcileArguments& arguments, WallMicros now) {
  const auto since = parse_moment(arguments.since, now);
  if (!since) return failure("--since: '" + arguments.since + "' is no moment (see --help)");
  sink::Period period{*since, now};
  if (!arguments.until.empty()) {
    const auto until = parse_moment(arguments.until, now);
    if (!until) return failure("--until: '" + arguments.until + "' is no moment (see --help)");
    period.until = std::min(*until, now);
  }
  if (period.since >= period.until) return failure("the period is empty: it ends before it begins");
  return period;
}

// The config's own, and the others', each once.
Result<std::vector<std::string>> directories_of(const Config& config, const ReconcileArguments& arguments) {
  std::vector<std::string> directories{config.journal.directory};
  for (const std::string& directory : arguments.journals) {
    std::error_code error;
    if (!std::filesystem::is_directory(directory, error))
      return failure("--journal: there is no directory " + directory);
    const bool is_known = std::any_of(directories.begin(), directories.end(), [&](const std::string& known) {
      std::error_code missing;
      return std::filesystem::equivalent(known, directory, missing);
    });
    if (!is_known) directories.push_back(directory);
  }
  return directories;
}

template <typename T>
Result<T> plain(sink::StoreResult<T> result) {
  if (!result) return failure("cannot ask the store: " + result.error().message);
  return std::move(*result);
}

}  // namespace

std::optional<WallMicros> parse_moment(std::string_view text, WallMicros now) noexcept {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end + 1 == text.data() + text.size() && number >= 0) {
    std::int64_t unit = 0;
    if (*end == 's') unit = kMicrosPerSecond;
    if (*end == 'm') unit = 60 * kMicrosPerSecond;
    if (*end == 'h') unit = kMicrosPerHour;
    if (*end == 'd') unit = kMicrosPerDay;
    if (unit == 0 || number > now / unit) return std::nullopt;
    return now - number * unit;
  }
  const auto moment = parse_timestamp(text);
  if (!moment || *moment < 0) return std::nullopt;
  return moment;
}

Result<Reconciled> run_reconcile(const Config& config, const ReconcileArguments& arguments,
                                 bool& usage_error) {
  const WallMicros now = system_clock().wall();
  usage_error = true;
  const auto period = period_of(arguments, now);
  if (!period) return period.error();
  const auto directories = directories_of(config, arguments);
  if (!directories) return directories.error();
  usage_error = false;

  std::unique_ptr<sink::StoreAudit> audit;
  if (config.store.kind != "none") {
    auto opened = open_audit(config);
    if (!opened) return failure("cannot open the store: " + opened.error().message);
    audit = std::move(*opened);
  }

  std::unique_ptr<sink::KafkaTopic> topic;
  if (!config.kafka.brokers.empty()) {
    auto made = sink::KafkaTopic::create(
        {.kafka = kafka_options(config),
         .topic = config.kafka.topic,
         .dead_letter_topic = config.kafka.dlq_topic,
         .keeps_since = now - config.kafka.retention_hours * kMicrosPerHour},
        [&audit](const std::string& name) -> Result<std::vector<sink::PartitionPosition>> {
          if (audit == nullptr) return std::vector<sink::PartitionPosition>();
          return plain(audit->partition_positions(name));
        });
    if (!made) return made.error();
    topic = std::move(*made);
  }

  std::vector<std::unique_ptr<sink::JournalDirectory>> journals;
  std::vector<sink::JournalPlace*> journal_places;
  for (const std::string& directory : *directories) {
    journals.push_back(std::make_unique<sink::JournalDirectory>(
        directory, [&, directory](const Uuid& journal_id) -> Result<std::uint64_t> {
          if (topic != nullptr) return sink::shipped_position(directory, journal_id);
          if (audit == nullptr) return 0;
          return plain(audit->journal_position(journal_id));
        }));
    journal_places.push_back(journals.back().get());
  }

  sink::ReconcileOptions options{.period = *period,
                                 .dedup_window_us = config.quota.dedup_window_hours * kMicrosPerHour};
  if (config.store.kind == "postgres" && config.store.retention_days > 0)
    options.retained_since = start_of_day(day_of(now) - config.store.retention_days + 1);
  const auto report =
      sink::reconcile({.journals = journal_places, .topic = topic.get(), .store = audit.get()}, options);
  if (!report) return report.error();
  return Reconciled{.text = arguments.json ? sink::report_json(*report) + "\n" : sink::report_text(*report),
                    .exit_code = report->is_clean() ? kExitClean : kExitDiffers};
}

}  // namespace kavach::http
