// Tiers: the contract's table, and what a wrong file is told.
#include "quota/tiers.h"

#include <doctest/doctest.h>

#include <fstream>
#include <string>

#include "tests/support/temp_folder.h"

namespace kavach::quota {
namespace {

struct TiersFile {
  explicit TiersFile(const std::string& text) { std::ofstream(path) << text; }
  test::TempFolder folder;
  std::string path = folder.file("tiers.toml");
};

TEST_CASE("without a file the tiers are the contract's") {
  const auto tiers = TierTable::load("");
  REQUIRE(tiers.has_value());
  CHECK(tiers->find("free")->agents_max == 3);
  CHECK(tiers->find("pro")->events_per_day == 10'000);
  CHECK_FALSE(tiers->find("max")->agents_max.has_value());
  CHECK(tiers->find("gold") == nullptr);
}

TEST_CASE("a key that is left out means no limit") {
  const TiersFile file("[team]\nevents_per_day = 5\n");
  const auto tiers = TierTable::load(file.path);
  REQUIRE(tiers.has_value());
  CHECK(tiers->find("team")->events_per_day == 5);
  CHECK_FALSE(tiers->find("team")->burst_per_minute.has_value());
  CHECK(tiers->names() == "team");
}

TEST_CASE("every problem of a file is told with its place") {
  const TiersFile file("[team]\nevents_per_day = -1\nevent_per_day = 3\nretention_days = \"x\"\n");
  const auto tiers = TierTable::load(file.path);
  REQUIRE_FALSE(tiers.has_value());
  CHECK(tiers.error().message.find(file.path + ":2:18: team.events_per_day") != std::string::npos);
  CHECK(tiers.error().message.find(":3:17: team.event_per_day: unknown key") != std::string::npos);
  CHECK(tiers.error().message.find("team.retention_days: must be an integer in 1..3650") !=
        std::string::npos);
}

TEST_CASE("a file that is no TOML or is empty is refused") {
  CHECK_FALSE(TierTable::load(TiersFile("[team").path).has_value());
  CHECK_FALSE(TierTable::load(TiersFile("").path).has_value());
  CHECK_FALSE(TierTable::load("/nowhere/tiers.toml").has_value());
}

}  // namespace
}  // namespace kavach::quota
