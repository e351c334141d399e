// The description of the control API: what its tables have in common with each other.
#include <doctest/doctest.h>

#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "http/control/endpoint.h"

namespace kavach::http {
namespace {

void collect(const Schema* schema, std::map<std::string_view, const Schema*>& named) {
  if (schema == nullptr) return;
  const auto [known, is_new] = named.emplace(schema->name, schema);
  CAPTURE(schema->name);
  CHECK(known->second == schema);
  if (!is_new) return;
  for (const Field& field : schema->fields) collect(field.item, named);
}

}  // namespace

TEST_CASE("no two schemas have the same name") {
  std::map<std::string_view, const Schema*> named;
  for (const Endpoint* const endpoint : all_endpoints()) {
    collect(endpoint->body, named);
    collect(endpoint->reply, named);
  }
}

TEST_CASE("no two endpoints have the same method and path") {
  std::set<std::pair<Method, std::string_view>> seen;
  for (const Endpoint* const endpoint : all_endpoints()) {
    CAPTURE(endpoint->path);
    CHECK(seen.emplace(endpoint->method, endpoint->path).second);
  }
}

}  // namespace kavach::http
