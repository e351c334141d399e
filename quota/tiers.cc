#include "quota/tiers.h"

#include <fmt/format.h>

#include <toml++/toml.h>
#include <array>

namespace kavach::quota {
namespace {

constexpr std::int64_t kRetentionDaysMax = 3650;
constexpr std::int64_t kPriceMax = 1'000'000;

struct Column {
  std::string_view key;
  std::int64_t min;
  std::int64_t max;
};
constexpr std::array<Column, 4> kColumns{{{"events_per_day", 0, 1'000'000'000'000},
                                          {"max_agents", 0, 100'000'000},
                                          {"burst_per_minute", 0, 1'000'000'000'000},
                                          {"retention_days", 1, kRetentionDaysMax}}};

std::string place(const std::string& path, const toml::source_region& source) {
  return fmt::format("{}:{}:{}", path, source.begin.line, source.begin.column);
}

void read_tier(const std::string& path, std::string_view name, const toml::table& table, Tier& tier,
               std::string& problems) {
  tier.name = name;
  for (const auto& [key, node] : table) {
    if (key.str() == "price_usd_monthly") {
      const auto price = node.is_number() ? node.value<double>() : std::nullopt;
      if (price && *price >= 0 && *price <= kPriceMax) {
        tier.price_usd_monthly = *price;
      } else {
        problems += fmt::format("{}: {}.{}: must be a number in 0..{}\n", place(path, node.source()), name,
                                key.str(), kPriceMax);
      }
      continue;
    }
    const auto column = std::find_if(kColumns.begin(), kColumns.end(),
                                     [&, k = key.str()](const Column& c) { return c.key == k; });
    if (column == kColumns.end()) {
      problems += fmt::format(
          "{}: {}.{}: unknown key (known: events_per_day, max_agents, burst_per_minute, "
          "retention_days, price_usd_monthly)\n",
          place(path, node.source()), name, key.str());
      continue;
    }
    const auto value = node.value_exact<std::int64_t>();
    if (!value || *value < column->min || *value > column->max) {
      problems += fmt::format("{}: {}.{}: must be an integer in {}..{} (leave the key out for no limit)\n",
                              place(path, node.source()), name, key.str(), column->min, column->max);
      continue;
    }
    switch (column - kColumns.begin()) {
      case 0:
        tier.events_per_day = *value;
        break;
      case 1:
        tier.agents_max = *value;
        break;
      case 2:
        tier.burst_per_minute = *value;
        break;
      default:
        tier.retention_days = *value;
        break;
    }
  }
}

}  // namespace

TierTable TierTable::built_in() {
  TierTable table;
  table.tiers_ = {
      {.name = "free",
       .events_per_day = 1'000,
       .agents_max = 3,
       .burst_per_minute = 1'000,
       .retention_days = 7},
      {.name = "pro",
       .events_per_day = 10'000,
       .agents_max = 100,
       .burst_per_minute = 5'000,
       .retention_days = 30,
       .price_usd_monthly = 49},
      {.name = "max",
       .events_per_day = 1'000'000,
       .agents_max = std::nullopt,
       .burst_per_minute = 20'000,
       .retention_days = 90,
       .price_usd_monthly = 199},
  };
  return table;
}

Result<TierTable> TierTable::load(const std::string& path) {
  if (path.empty()) return built_in();
  TierTable result;
  std::string problems;
  try {
    const toml::table root = toml::parse_file(path);
    for (const auto& [key, node] : root) {
      if (const toml::table* table = node.as_table()) {
        read_tier(path, key.str(), *table, result.tiers_.emplace_back(), problems);
      } else {
        problems +=
            fmt::format("{}: {}: expected a table, [{}]\n", place(path, node.source()), key.str(), key.str());
      }
    }
  } catch (const toml::parse_error& error) {
    return failure(fmt::format("{}: {}", place(path, error.source()), error.description()));
  }
  if (result.tiers_.empty() && problems.empty()) problems = path + ": no tier in it\n";
  if (!problems.empty()) {
    problems.pop_back();
    return failure(problems);
  }
  return result;
}

const Tier* TierTable::find(std::string_view name) const noexcept {
  for (const Tier& tier : tiers_) {
    if (tier.name == name) return &tier;
  }
  return nullptr;
}

std::string TierTable::names() const {
  std::string names;
  for (const Tier& tier : tiers_) {
    if (!names.empty()) names += ", ";
    names += tier.name;
  }
  return names;
}

}  // namespace kavach::quota
