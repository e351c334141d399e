// Metrics: the text that Prometheus reads, and which bucket a duration falls into.
#include "engine/metrics.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <functional>
#include <string>

namespace kavach {
namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Whether `run` ends the process with an assertion.
bool asserts(const std::function<void()>& run) {
  std::fflush(nullptr);  // or the child would write it again
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(STDERR_FILENO);
    std::signal(SIGABRT, SIG_DFL);  // doctest's own would report a crash
    run();
    ::_exit(0);
  }
  int status = 0;
  return ::waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

TEST_CASE("counters and gauges are exposed with help, type and labels") {
  Counter accepted;
  Gauge open;
  MetricsRegistry registry;
  registry.add("kavach_accepted_total", "Taken.", accepted, {{"shard", "0"}});
  registry.add("kavach_open", "Open now.", open);
  accepted.add();
  accepted.add(41);
  open.set(7);
  open.add(-10);
  CHECK(registry.expose() ==
        "# HELP kavach_accepted_total Taken.\n"
        "# TYPE kavach_accepted_total counter\n"
        "kavach_accepted_total{shard=\"0\"} 42\n"
        "# HELP kavach_open Open now.\n"
        "# TYPE kavach_open gauge\n"
        "kavach_open -3\n");
}

TEST_CASE("instances with the same name and labels are added up, others stay apart under one head") {
  Counter first;
  Counter second;
  Counter other;
  MetricsRegistry registry;
  registry.add("kavach_x_total", "X.", first, {{"reason", "a"}});
  registry.add("kavach_x_total", "X.", other, {{"reason", "b"}});
  registry.add("kavach_x_total", "X.", second, {{"reason", "a"}});
  first.add(1);
  second.add(2);
  other.add(4);
  CHECK(registry.expose() ==
        "# HELP kavach_x_total X.\n"
        "# TYPE kavach_x_total counter\n"
        "kavach_x_total{reason=\"a\"} 3\n"
        "kavach_x_total{reason=\"b\"} 4\n");
}

TEST_CASE("a computed gauge is asked at every scrape") {
  double value = 0.5;
  MetricsRegistry registry;
  registry.add_gauge("kavach_ratio", "R.", [&] { return value; });
  CHECK(contains(registry.expose(), "kavach_ratio 0.5\n"));
  value = 2;
  CHECK(contains(registry.expose(), "kavach_ratio 2\n"));
}

TEST_CASE("a label's value is escaped") {
  Counter counter;
  MetricsRegistry registry;
  registry.add("kavach_x_total", "X.", counter, {{"path", "a\"b\\c\nd"}});
  CHECK(contains(registry.expose(), R"(kavach_x_total{path="a\"b\\c\nd"} 0)"));
}

TEST_CASE("bucket i holds durations up to 2^i microseconds, the last one all longer ones") {
  DurationHistogram histogram;
  const auto bucket_of = [](std::int64_t micros) {
    DurationHistogram one;
    one.record(micros);
    std::size_t bucket = 0;
    while (one.count(bucket) == 0) ++bucket;
    return bucket;
  };
  CHECK(bucket_of(-5) == 0);
  CHECK(bucket_of(0) == 0);
  CHECK(bucket_of(1) == 0);
  for (std::size_t i = 1; i < DurationHistogram::kBuckets - 1; ++i) {
    CHECK(bucket_of((std::int64_t{1} << (i - 1)) + 1) == i);
    CHECK(bucket_of(std::int64_t{1} << i) == i);
  }
  CHECK(bucket_of((std::int64_t{1} << 25) + 1) == DurationHistogram::kBuckets - 1);
  CHECK(bucket_of(INT64_MAX) == DurationHistogram::kBuckets - 1);
  histogram.record(3);
  histogram.record(-3);
  histogram.record(10);
  CHECK(histogram.sum_micros() == 13);
}

TEST_CASE("a histogram is exposed in seconds, cumulative, its parts added up") {
  DurationHistogram first;
  DurationHistogram second;
  MetricsRegistry registry;
  registry.add("kavach_wait_seconds", "W.", first);
  registry.add("kavach_wait_seconds", "W.", second);
  first.record(1);
  first.record(3);
  second.record(4);
  second.record(60'000'000);
  const std::string text = registry.expose();
  CHECK(contains(text, "# TYPE kavach_wait_seconds histogram\n"));
  CHECK(contains(text, "kavach_wait_seconds_bucket{le=\"1e-06\"} 1\n"));
  CHECK(contains(text, "kavach_wait_seconds_bucket{le=\"2e-06\"} 1\n"));
  CHECK(contains(text, "kavach_wait_seconds_bucket{le=\"4e-06\"} 3\n"));
  CHECK(contains(text, "kavach_wait_seconds_bucket{le=\"33.554432\"} 3\n"));
  CHECK(contains(text, "kavach_wait_seconds_bucket{le=\"+Inf\"} 4\n"));
  CHECK(contains(text, "kavach_wait_seconds_count 4\n"));
  CHECK(contains(text, "kavach_wait_seconds_sum 60.000008\n"));
}

TEST_CASE("a metric that is named against the rules ends the process at start") {
  const Counter counter;
  const Gauge gauge;
  const DurationHistogram histogram;
  MetricsRegistry registry;
  CHECK_FALSE(asserts([&] { registry.add("kavach_fine_total", "", counter); }));
  CHECK(asserts([&] { registry.add("fine_total", "", counter); }));
  CHECK(asserts([&] { registry.add("kavach_Fine_total", "", counter); }));
  CHECK(asserts([&] { registry.add("kavach_fine", "", counter); }));
  CHECK(asserts([&] { registry.add("kavach_fine_total", "", gauge); }));
  CHECK(asserts([&] { registry.add("kavach_fine_ms", "", histogram); }));
  CHECK(asserts([&] { registry.add("kavach_fine_total", "", counter, {{"le-gal", "x"}}); }));
  CHECK(asserts([&] {
    registry.add("kavach_x_seconds", "", gauge);
    registry.add("kavach_x_seconds", "", histogram);
  }));
}

}  // namespace
}  // namespace kavach
