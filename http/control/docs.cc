#include "http/control/docs.h"

#include <fmt/format.h>

namespace kavach::http {
namespace {

std::string_view who(Access access) noexcept {
  switch (access) {
    case Access::kApiKey:
      return "an API key";
    case Access::kPublic:
      return "anybody";
    case Access::kMember:
      return "a member's token";
    case Access::kAdmin:
      return "an admin's token";
    case Access::kOwner:
      return "an owner's token";
    case Access::kExpired:
      return "a token, also one that ended within a day";
  }
  return "";
}

std::string fields_of(const Schema* schema) {
  if (schema == nullptr) return "";
  std::string listed;
  for (const Field& field : schema->fields) {
    listed +=
        fmt::format("{}<code>{}</code>{}", listed.empty() ? "" : ", ", field.name, field.required ? "" : "?");
  }
  return listed;
}

std::string_view name_of(Method method) noexcept {
  switch (method) {
    case Method::kGet:
      return "GET";
    case Method::kPost:
      return "POST";
    case Method::kPut:
      return "PUT";
    case Method::kPatch:
      return "PATCH";
    case Method::kDelete:
      return "DELETE";
    case Method::kHead:
    case Method::kOptions:
    case Method::kOther:
      break;
  }
  return "";
}

}  // namespace

std::string docs_page(std::span<const Endpoint* const> endpoints) {
  std::string page =
      "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Kavach API</title>"
      "<style>body{font:15px/1.5 sans-serif;margin:2em auto;max-width:75em}td,th{padding:.3em .8em;"
      "text-align:left;vertical-align:top;border-top:1px solid #ddd}code{white-space:nowrap}</style>"
      "<h1>Kavach API</h1><p>For tools: <a href=\"/openapi.json\">/openapi.json</a>. Events go to "
      "<code>POST /v1/ingest</code> with an API key; everything below takes a token of "
      "<code>POST /v1/auth/login</code>.</p><table><tr><th>endpoint<th>who<th>what<th>takes<th>gives</tr>";
  for (const Endpoint* const endpoint : endpoints) {
    page +=
        fmt::format("<tr><td><code>{} {}</code><td>{}<td>{}<td>{}{}<td>{} {}</tr>", name_of(endpoint->method),
                    endpoint->path, who(endpoint->access), endpoint->summary, fields_of(endpoint->query),
                    fields_of(endpoint->body), endpoint->status, fields_of(endpoint->reply));
  }
  return page + "</table></html>";
}

}  // namespace kavach::http
