#include "engine/metrics.h"

#include "engine/check.h"
#include "engine/clock.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <string_view>
#include <utility>

namespace kavach {
namespace {

// The last bucket has no bound of its own: it is the +Inf bucket.
constexpr std::size_t kBounded = DurationHistogram::kBuckets - 1;

constexpr double seconds(std::uint64_t micros) {
  return static_cast<double>(micros) / kMicrosPerSecond;
}

bool is_word(std::string_view text) {
  const auto in_word = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
  return !text.empty() && std::all_of(text.begin(), text.end(), in_word) && text[0] >= 'a';
}

// Buckets first, count from the buckets: the lines of one scrape agree although shards go on recording.
prometheus::ClientMetric::Histogram sum_up(const std::vector<const DurationHistogram*>& histograms) {
  prometheus::ClientMetric::Histogram out;
  std::uint64_t cumulative = 0;
  std::uint64_t micros = 0;
  for (std::size_t i = 0; i < DurationHistogram::kBuckets; ++i) {
    for (const auto* histogram : histograms) cumulative += histogram->count(i);
    if (i < kBounded) out.bucket.push_back({cumulative, seconds(std::uint64_t{1} << i)});
  }
  for (const auto* histogram : histograms) micros += histogram->sum_micros();
  out.sample_count = cumulative;
  out.sample_sum = seconds(micros);
  return out;
}

}  // namespace

MetricsRegistry::Series& MetricsRegistry::series(std::string name, std::string help, Kind kind,
                                                 Labels labels) {
  KAVACH_CHECK(name.starts_with("kavach_") && is_word(name), "a metric is named kavach_lower_case");
  KAVACH_CHECK((kind == Kind::kCounter) == name.ends_with("_total"),
               "counters, and only they, end in _total");
  KAVACH_CHECK(kind != Kind::kHistogram || name.ends_with("_seconds"), "a duration is exposed in seconds");
  for (const auto& [label, value] : labels) KAVACH_CHECK(is_word(label), "a label is named lower_case");

  auto family =
      std::find_if(families_.begin(), families_.end(), [&](const Family& f) { return f.name == name; });
  if (family == families_.end()) {
    family = families_.insert(family, Family{std::move(name), std::move(help), kind, {}});
  }
  KAVACH_CHECK(family->kind == kind, "one metric name has one type");
  auto same = std::find_if(family->series.begin(), family->series.end(),
                           [&](const Series& s) { return s.labels == labels; });
  if (same == family->series.end()) {
    same = family->series.insert(same, Series{std::move(labels), {}, {}, {}});
  }
  return *same;
}

void MetricsRegistry::add(std::string name, std::string help, const Counter& metric, Labels labels) {
  series(std::move(name), std::move(help), Kind::kCounter, std::move(labels)).counters.push_back(&metric);
}

void MetricsRegistry::add(std::string name, std::string help, const Gauge& metric, Labels labels) {
  add_gauge(
      std::move(name), std::move(help), [&metric] { return static_cast<double>(metric.value()); },
      std::move(labels));
}

void MetricsRegistry::add(std::string name, std::string help, const DurationHistogram& metric,
                          Labels labels) {
  series(std::move(name), std::move(help), Kind::kHistogram, std::move(labels)).histograms.push_back(&metric);
}

void MetricsRegistry::add_gauge(std::string name, std::string help, std::function<double()> read,
                                Labels labels) {
  series(std::move(name), std::move(help), Kind::kGauge, std::move(labels)).gauges.push_back(std::move(read));
}

std::string MetricsRegistry::expose() const {
  std::vector<prometheus::MetricFamily> out;
  out.reserve(families_.size());
  for (const Family& family : families_) {
    prometheus::MetricFamily shown{family.name, family.help, prometheus::MetricType::Gauge, {}};
    if (family.kind == Kind::kCounter) shown.type = prometheus::MetricType::Counter;
    if (family.kind == Kind::kHistogram) shown.type = prometheus::MetricType::Histogram;
    for (const Series& series : family.series) {
      prometheus::ClientMetric metric;
      for (const auto& [name, value] : series.labels) metric.label.push_back({name, value});
      for (const auto* counter : series.counters)
        metric.counter.value += static_cast<double>(counter->value());
      for (const auto& read : series.gauges) metric.gauge.value += read();
      if (family.kind == Kind::kHistogram) metric.histogram = sum_up(series.histograms);
      shown.metric.push_back(std::move(metric));
    }
    out.push_back(std::move(shown));
  }
  return prometheus::TextSerializer().Serialize(out);
}

}  // namespace kavach
