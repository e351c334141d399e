#include "bench/load/report.h"

#include <fmt/format.h>

namespace kavach::bench {
namespace {

double micros(std::uint64_t ns) {
  return static_cast<double>(ns) / 1000;
}

double per(double amount, std::uint64_t count) {
  return count == 0 ? 0 : amount / static_cast<double>(count);
}

}  // namespace

std::string report_text(const LoadOptions& options, const LoadReport& report) {
  const Histogram& latency = report.latency_ns;
  const double rate = static_cast<double>(report.answers) / report.window_s;
  std::string out = fmt::format(
      "{} connections x {} events, {}, {}\n", options.connections, options.events,
      options.gzip ? "gzip" : "plain",
      options.rate > 0 ? fmt::format("{:.0f} requests/s wanted", options.rate) : std::string("closed loop"));
  out += fmt::format("answers    {} in {:.2f} s: {:.0f} requests/s, {:.0f} events/s\n", report.answers,
                     report.window_s, rate, rate * options.events);
  out += fmt::format("latency us p50 {:.0f}  p90 {:.0f}  p99 {:.0f}  p99.9 {:.0f}  max {:.0f}\n",
                     micros(latency.value_at(0.5)), micros(latency.value_at(0.9)),
                     micros(latency.value_at(0.99)), micros(latency.value_at(0.999)), micros(latency.max()));
  if (const CpuTimes server = merged(report.server_cpu); !server.empty()) {
    const double cpu = micros(sum_of(server));
    out += fmt::format("server CPU {:.2f} us/request, {:.0f} ns/event:", per(cpu, report.answers),
                       per(cpu * 1000, report.answers * options.events));
    for (const auto& [thread, ns] : server) {
      out += fmt::format(" {} {:.2f}", thread, per(micros(ns), report.answers));
    }
    out += '\n';
  }
  out += fmt::format("own CPU    {:.2f} us/request, {:.0f} % of a core\n",
                     per(micros(report.own_cpu_ns), report.answers),
                     static_cast<double>(report.own_cpu_ns) / 1e7 / report.window_s);
  if (report.ran_out) out += "ended early: every gzip body was sent under every key (--gzip-bodies, --key)\n";
  for (const auto& [fault, count] : report.faults) out += fmt::format("WRONG      {} x {}\n", count, fault);
  return out;
}

std::string report_json(const LoadOptions& options, const LoadReport& report) {
  const Histogram& latency = report.latency_ns;
  std::string threads;
  for (const auto& [thread, ns] : merged(report.server_cpu)) {
    threads += fmt::format("{}\"{}\":{:.1f}", threads.empty() ? "" : ",", thread, micros(ns));
  }
  std::string processes;
  for (const auto& [pid, times] : report.server_cpu) {
    processes += fmt::format("{}\"{}\":{:.1f}", processes.empty() ? "" : ",", pid, micros(sum_of(times)));
  }
  std::string faults;
  for (const auto& [fault, count] : report.faults) {
    faults += fmt::format("{}\"{}\":{}", faults.empty() ? "" : ",", fault, count);
  }
  return fmt::format(
      R"({{"connections":{},"events":{},"gzip":{},"rate_wanted":{},"window_s":{:.4f},"answers":{},)"
      R"("latency":{{"p50":{:.1f},"p90":{:.1f},"p99":{:.1f},"p99_9":{:.1f},"max":{:.1f},"mean":{:.1f}}},)"
      R"("server_cpu":{{{}}},"process_cpu":{{{}}},"own_cpu":{:.1f},"ran_out":{},"faults":{{{}}}}})",
      options.connections, options.events, options.gzip, options.rate, report.window_s, report.answers,
      micros(latency.value_at(0.5)), micros(latency.value_at(0.9)), micros(latency.value_at(0.99)),
      micros(latency.value_at(0.999)), micros(latency.max()), latency.mean() / 1000, threads, processes,
      micros(report.own_cpu_ns), report.ran_out, faults);
}

}  // namespace kavach::bench
