// Races: the same rows carried by Kavach and by the least that could carry them, one after the other in one
// process, so that what disturbs the machine meets both.
#pragma once

#include <sys/resource.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bench/pipeline/workload.h"

namespace kavach::bench {

// What one leg took. CPU is that of this process with all its threads, not that of a server.
struct Leg {
  std::string name;
  double seconds = 0;
  double cpu_s = 0;
};

class LegTimer {
 public:
  explicit LegTimer(std::string_view name) : name_(name) {}
  Leg stop() const {
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started_;
    return {name_, took.count(), cpu_s() - cpu_before_};
  }

 private:
  static double cpu_s() {
    rusage used{};
    ::getrusage(RUSAGE_SELF, &used);
    const auto seconds = [](const timeval& t) {
      return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
    };
    return seconds(used.ru_utime) + seconds(used.ru_stime);
  }

  std::string name_;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  double cpu_before_ = cpu_s();
};

struct RaceOptions {
  WorkloadOptions workload;
  std::string directory = ".";
  bool ceiling_first = false;
  std::uint64_t transaction_events = 10'000;
  std::string brokers;
  std::string url;
};

// All throw std::exception when a leg has not carried every row: its time would mean nothing.

// "kavach": sink::KafkaShipper drains a journal into a new topic. "ceiling": rd_kafka_producev() of the same
// records, encoded before, with the same settings of the client.
std::vector<Leg> race_kafka(const RaceOptions& options);
// "kavach": sink::Shipper drains a journal into SQLite. "ceiling": a prepared INSERT per row into a table
// `events` alone, of the same schema and pragmas, with as many rows per transaction. "tables": the same into
// `events` and `dedup_keys`.
std::vector<Leg> race_sqlite(const RaceOptions& options);
// "kavach": Store::apply_at() in transactions, into Postgres. Its ceiling is psql's, which scripts/bench
// runs.
std::vector<Leg> race_postgres(const RaceOptions& options);

}  // namespace kavach::bench
