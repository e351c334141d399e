// ErrorList: the form of an error, and the bounds on what is echoed and listed.
#include "http/ingest/error_list.h"

#include <doctest/doctest.h>

#include <string>

namespace kavach::http {
namespace {

constexpr ValidationError kError = {.type = "t", .loc = R"("body",0)", .msg = "m", .ctx = {}};
const std::string kHead = R"({"type":"t","loc":["body",0],"msg":"m","input":)";

TEST_CASE("errors stand in one list, in the order in which they were added") {
  ErrorList errors;
  CHECK(errors.empty());
  errors.add(kError, "{}");
  errors.add_echo({.type = "t", .loc = R"("body",0)", .msg = "m", .ctx = R"({"ge":0})"}, "-5");
  errors.add_echo_text(kError, "a\"\n\xc3\xa9");
  CHECK_FALSE(errors.empty());
  CHECK(errors.take_body() == R"({"detail":[)" + kHead + "{}}," + kHead + R"(-5,"ctx":{"ge":0}},)" + kHead +
                                  "\"a\\\"\\n\xc3\xa9\"}]}");
}

TEST_CASE("a taken list is empty and starts anew") {
  ErrorList errors;
  errors.add(kError, "1");
  const std::string first = errors.take_body();
  CHECK(errors.empty());
  errors.add(kError, "1");
  CHECK(errors.take_body() == first);
}

TEST_CASE("an echo that would take the list beyond its bound becomes null; smaller ones after it do not") {
  // The list's own bytes up to the first echo.
  const std::size_t before = std::string(R"({"detail":[)").size() + kHead.size();
  const std::string fits = '"' + std::string(ErrorList::kEchoBytesMax - before - 2, 'x') + '"';
  ErrorList errors;
  errors.add_echo(kError, fits);
  CHECK(errors.take_body() == R"({"detail":[)" + kHead + fits + "}]}");

  errors.add_echo(kError, '"' + fits.substr(1, fits.size() - 2) + "y\"");
  errors.add_echo_text(kError, fits + "y");
  errors.add_echo(kError, "5");
  CHECK(errors.take_body() == R"({"detail":[)" + kHead + "null}," + kHead + "null}," + kHead + "5}]}");
}

TEST_CASE("escapes make an echo longer than what was sent, but only six times") {
  ErrorList errors;
  errors.add_echo_text(kError, std::string(ErrorList::kEchoBytesMax / 2, '\x01'));
  CHECK(errors.take_body().size() < 6 * ErrorList::kEchoBytesMax);
}

TEST_CASE("however many errors there are, the list ends and is still JSON") {
  const std::string echo = '"' + std::string(1000, 'x') + '"';
  ErrorList errors;
  for (int i = 0; i < 1'000'000; ++i) errors.add_echo(kError, echo);
  const std::string body = errors.take_body();
  CHECK(body.size() > ErrorList::kListBytesMax);
  CHECK(body.size() < ErrorList::kListBytesMax + 1000);
  CHECK(body.ends_with(kHead + "null}]}"));
}

}  // namespace
}  // namespace kavach::http
