#include "bench/load/cpu_time.h"

#include <filesystem>
#include <fstream>
#include <system_error>

namespace kavach::bench {

CpuTimes cpu_times(int pid) {
  CpuTimes times;
  std::error_code error;
  std::filesystem::directory_iterator tasks("/proc/" + std::to_string(pid) + "/task", error);
  if (error) return times;
  for (const auto& task : tasks) {
    std::string name;
    std::uint64_t nanos = 0;
    std::ifstream comm(task.path() / "comm");
    std::ifstream schedstat(task.path() / "schedstat");
    if (std::getline(comm, name) && schedstat >> nanos) times[name] += nanos;
  }
  return times;
}

CpuTimes operator-(const CpuTimes& later, const CpuTimes& earlier) {
  CpuTimes difference;
  for (const auto& [name, nanos] : later) {
    const auto before = earlier.find(name);
    difference[name] = before == earlier.end() ? nanos : nanos - before->second;
  }
  return difference;
}

std::uint64_t sum_of(const CpuTimes& times) {
  std::uint64_t sum = 0;
  for (const auto& [name, nanos] : times) sum += nanos;
  return sum;
}

ProcessTimes cpu_times(const std::vector<int>& pids) {
  ProcessTimes processes;
  for (const int pid : pids) processes[pid] = cpu_times(pid);
  return processes;
}

ProcessTimes operator-(const ProcessTimes& later, const ProcessTimes& earlier) {
  ProcessTimes difference;
  for (const auto& [pid, times] : later) difference[pid] = times - earlier.at(pid);
  return difference;
}

CpuTimes merged(const ProcessTimes& processes) {
  CpuTimes all;
  for (const auto& [pid, times] : processes) {
    for (const auto& [name, nanos] : times) all[name] += nanos;
  }
  return all;
}

}  // namespace kavach::bench
