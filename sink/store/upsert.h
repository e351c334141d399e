// Upsert: the SQL that adds an aggregate to its row, built from a list of columns and what each of them does.
//
// The text is the same for SQLite and Postgres. Six tables times a dozen columns written by hand would differ
// somewhere; here each rule (saturation, earliest, latest) stands once.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace kavach::sink {

// What happens to a column when the row is already there.
enum class Merge : std::uint8_t {
  kKey,   // part of the primary key
  kKeep,  // stays as it was inserted
  kSum,   // grows by the new value, and stops at the largest int64 instead of turning into a float
  kMin,
  kMax,         // a NULL gives way
  kOfEarliest,  // replaced when the new value belongs to an earlier time in `first_us`
  kOfLatest,    // replaced when the new value belongs to a later or the same time in `last_us`
};

struct UpsertColumn {
  std::string_view name;
  Merge merge;
};

struct UpsertTable {
  std::string_view name;
  std::string_view first_us = {};  // the columns that kOfEarliest and kOfLatest compare
  std::string_view last_us = {};
};

// INSERT ... ON CONFLICT (key) DO UPDATE ...; parameter ?i is column i. REQUIRES: sums are added
// non-negative.
std::string upsert_sql(const UpsertTable& table, std::span<const UpsertColumn> columns);

}  // namespace kavach::sink
