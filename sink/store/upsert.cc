#include "sink/store/upsert.h"

#include <fmt/format.h>

#include <vector>

namespace kavach::sink {
namespace {

// The right side of `SET column = ...`; CASE and not MIN(a, b), which Postgres calls LEAST.
std::string merged(const UpsertTable& table, const UpsertColumn& column) {
  std::string old_value = fmt::format("{}.{}", table.name, column.name);
  std::string new_value = fmt::format("excluded.{}", column.name);
  switch (column.merge) {
    case Merge::kSum:
      return fmt::format(
          "CASE WHEN {0} > 9223372036854775807 - {1} THEN 9223372036854775807 ELSE {0} + {1} END", old_value,
          new_value);
    case Merge::kMin:
      return fmt::format("CASE WHEN {0} <= {1} THEN {0} ELSE {1} END", old_value, new_value);
    case Merge::kMax:
      return fmt::format("CASE WHEN {0} >= {1} THEN {0} ELSE {1} END", old_value, new_value);
    case Merge::kOfEarliest:
      return fmt::format("CASE WHEN {2}.{3} <= excluded.{3} THEN {0} ELSE {1} END", old_value, new_value,
                         table.name, table.first_us);
    case Merge::kOfLatest:
      return fmt::format("CASE WHEN {2}.{3} > excluded.{3} THEN {0} ELSE {1} END", old_value, new_value,
                         table.name, table.last_us);
    case Merge::kKey:
    case Merge::kKeep:
      break;
  }
  return old_value;
}

}  // namespace

std::string upsert_sql(const UpsertTable& table, std::span<const UpsertColumn> columns) {
  std::vector<std::string> names, parameters, keys, changes;
  for (const UpsertColumn& column : columns) {
    names.emplace_back(column.name);
    parameters.push_back(fmt::format("?{}", names.size()));
    if (column.merge == Merge::kKey) {
      keys.emplace_back(column.name);
    } else if (column.merge != Merge::kKeep) {
      changes.push_back(fmt::format("{} = {}", column.name, merged(table, column)));
    }
  }
  return fmt::format("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}", table.name,
                     fmt::join(names, ", "), fmt::join(parameters, ", "), fmt::join(keys, ", "),
                     fmt::join(changes, ", "));
}

}  // namespace kavach::sink
