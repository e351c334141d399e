// CPU time: what each thread of a process has run so far, to the nanosecond, user and system together.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace kavach::bench {

// By thread name; threads of the same name are added up.
using CpuTimes = std::map<std::string, std::uint64_t>;

// From /proc/PID/task/*/schedstat. Empty when there is no such process.
CpuTimes cpu_times(int pid);

// What was run in between; threads that have ended meanwhile are left out.
CpuTimes operator-(const CpuTimes& later, const CpuTimes& earlier);
std::uint64_t sum_of(const CpuTimes& times);

// By process id.
using ProcessTimes = std::map<int, CpuTimes>;

ProcessTimes cpu_times(const std::vector<int>& pids);
ProcessTimes operator-(const ProcessTimes& later, const ProcessTimes& earlier);
// Of all processes together, by thread name.
CpuTimes merged(const ProcessTimes& processes);

}  // namespace kavach::bench
