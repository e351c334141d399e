// The file of models' prices, and which If-None-Match names an answer.
#include "http/control/pricing.h"

#include <doctest/doctest.h>

#include <fstream>
#include <string>

#include "tests/support/temp_folder.h"

namespace kavach::http {
namespace {

struct PriceFile {
  test::TempFolder folder;
  std::string path = folder.file("pricing.toml");

  Result<PriceList> load(std::string_view text) {
    std::ofstream(path) << text;
    return PriceList::load(path);
  }
  // What is wrong with it, without the file's name.
  std::string problems(std::string_view text) {
    const auto loaded = load(text);
    REQUIRE_FALSE(loaded.has_value());
    std::string found = loaded.error().message;
    for (std::size_t at = 0; (at = found.find(path + ":")) != std::string::npos;)
      found.erase(at, path.size() + 1);
    return found;
  }
};

}  // namespace

TEST_CASE("the prices that are built in are a file that could be loaded") {
  const auto built_in = PriceList::load("");
  REQUIRE(built_in.has_value());
  CHECK(built_in->body.find(R"("gpt-4o":{"input":0.0025,"output":0.01)") != std::string::npos);
  CHECK(built_in->etag.size() == 34);
}

TEST_CASE_FIXTURE(PriceFile, "prices are 0 to 10 dollars, and the same prices have the same tag") {
  constexpr std::string_view kFile = "updated = 2026-05-01\n[acme]\na = { input = 0, output = 10 }\n";
  const auto first = load(kFile);
  REQUIRE(first.has_value());
  CHECK(first->body.find(R"("last_updated":"2026-05-01T00:00:00Z")") != std::string::npos);
  CHECK(load(kFile)->etag == first->etag);
  CHECK(load(std::string(kFile) + "b = { input = 1, output = 1 }\n")->etag != first->etag);
  for (const std::string price : {"-0.1", "10.01", "nan", "inf", "'1'", "true"}) {
    CAPTURE(price);
    CHECK(problems("updated = 2026-05-01\n[acme]\na = { output = 1, input = " + price + " }\n")
              .find("a: input must be a number in 0..10, dollars per 1,000 tokens") != std::string::npos);
  }
}

TEST_CASE_FIXTURE(PriceFile, "everything that is wrong with a file is told at once") {
  const std::string found = problems(
      "[acme]\na = { input = 1 }\nb = 3\nc = { input = 1, output = 1, cached = 1 }\n"
      "[other]\nc = { input = 1, output = 1 }\n[aliases]\nc = 'c'\nx = 'gone'\ny = 1\n");
  for (const std::string_view problem :
       {"a: output must be a number", "b: must be { input = ..., output = ... }", "cached: unknown key",
        "c: is there twice", "c: is a model's own name", "x: there is no such model",
        "y: must be a model's name", "updated: missing"}) {
    CAPTURE(problem);
    CHECK(found.find(problem) != std::string::npos);
  }
  CHECK(problems("updated = 2026-05-01\n").find("no model in it") != std::string::npos);
  CHECK(
      problems("updated = 'May'\n[acme]\na = { input = 1, output = 1 }\n").find("updated: must be a date") !=
      std::string::npos);
  CHECK_FALSE(load("updated = ").has_value());
}

TEST_CASE("If-None-Match names a tag in a list, weak or not, or all of them") {
  constexpr std::string_view kTag = R"("t")";
  for (const std::string_view sent :
       {R"("t")", R"(W/"t")", R"("a", "t")", "\"a\"\t,\tW/\"t\"", "*", R"(, "t")"})
    CHECK(names_etag(sent, kTag));
  for (const std::string_view sent : {"", "t", R"("a")", R"("t)", R"("tt")", "W/", ",,"})
    CHECK_FALSE(names_etag(sent, kTag));
}

}  // namespace kavach::http
