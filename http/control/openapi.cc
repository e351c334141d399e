// /openapi.json, from the same tables that requests are checked by.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "http/control/endpoint.h"

namespace kavach::http {
namespace {

std::string_view method_name(Method method) noexcept {
  switch (method) {
    case Method::kGet:
      return "get";
    case Method::kPost:
      return "post";
    case Method::kPut:
      return "put";
    case Method::kPatch:
      return "patch";
    case Method::kDelete:
      return "delete";
    case Method::kHead:
    case Method::kOptions:
    case Method::kOther:
      break;
  }
  return "options";
}

std::string reference(std::string_view name) {
  return fmt::format(R"({{"$ref":"#/components/schemas/{}"}})", name);
}

// The schemas that a document names, and those that they name.
using Named = std::map<std::string_view, const Schema*>;

void collect(const Schema* schema, Named& named) {
  if (schema == nullptr || !named.emplace(schema->name, schema).second) return;
  for (const Field& field : schema->fields) collect(field.item, named);
}

void type_of(const Field& field, JsonOut& out) {
  const auto type = [&](std::string_view name) {
    if (!field.nullable) {
      out.text("type", name);
      return;
    }
    out.key("type").begin_list().text(name).text("null").end_list();
  };
  switch (field.kind) {
    case FieldKind::kText:
      type("string");
      if (field.text.chars_min > 0) out.integer("minLength", static_cast<std::int64_t>(field.text.chars_min));
      if (field.text.chars_max < TextRule{}.chars_max)
        out.integer("maxLength", static_cast<std::int64_t>(field.text.chars_max));
      break;
    case FieldKind::kEmail:
      type("string");
      out.text("format", "email");
      break;
    case FieldKind::kTimestamp:
      type("string");
      out.text("format", "date-time");
      break;
    case FieldKind::kInteger:
    case FieldKind::kNumber:
      type(field.kind == FieldKind::kInteger ? "integer" : "number");
      if (field.greater_than) out.number("exclusiveMinimum", *field.greater_than);
      if (field.at_least) out.number("minimum", *field.at_least);
      if (field.at_most) out.number("maximum", *field.at_most);
      break;
    case FieldKind::kFlag:
      type("boolean");
      break;
    case FieldKind::kChoice:
      type("string");
      out.key("enum").begin_list();
      for (const std::string_view choice : field.choices) out.text(choice);
      if (field.nullable) out.null();
      out.end_list();
      break;
    case FieldKind::kObject:
      if (field.nullable) {
        out.key("anyOf").begin_list().raw(reference(field.item->name)).raw(R"({"type":"null"})").end_list();
      } else {
        out.key("allOf").begin_list().raw(reference(field.item->name)).end_list();
      }
      break;
    case FieldKind::kList:
      type("array");
      out.key("items").raw(reference(field.item->name));
      break;
    case FieldKind::kTexts:
      type("array");
      out.key("items").raw(R"({"type":"string"})");
      break;
  }
  if (!field.preset.empty()) out.key("default").raw(field.preset);
  if (!field.help.empty()) out.text("description", field.help);
}

void describe(const Schema& schema, JsonOut& out) {
  out.begin().text("type", "object").key("properties").begin();
  for (const Field& field : schema.fields) {
    out.key(field.name).begin();
    type_of(field, out);
    out.end();
  }
  out.end();
  const bool has_required =
      std::any_of(schema.fields.begin(), schema.fields.end(), [](const Field& f) { return f.required; });
  if (has_required) {
    out.key("required").begin_list();
    for (const Field& field : schema.fields) {
      if (field.required) out.text(field.name);
    }
    out.end_list();
  }
  out.end();
}

void parameter(std::string_view place, std::string_view name, bool required, JsonOut& out,
               const Field* field) {
  out.begin().text("name", name).text("in", place).flag("required", required).key("schema").begin();
  if (field == nullptr) {
    out.text("type", "string");
  } else {
    type_of(*field, out);
  }
  out.end().end();
}

void response(int status, std::string_view description, const std::string& schema, JsonOut& out) {
  out.key(std::to_string(status)).begin().text("description", description);
  if (!schema.empty()) {
    out.key("content").begin().key("application/json").begin().key("schema").raw(schema).end().end();
  }
  out.end();
}

std::set<int> errors_of(const Endpoint& endpoint) {
  std::set<int> errors(endpoint.errors.begin(), endpoint.errors.end());
  errors.insert(429);  // overload
  errors.insert(503);  // the database is away
  if (endpoint.body != nullptr || endpoint.query != nullptr) errors.insert(422);
  if (endpoint.body != nullptr) errors.insert({400, 413, 415});
  if (endpoint.access != Access::kPublic) errors.insert(401);
  if (endpoint.access == Access::kAdmin || endpoint.access == Access::kOwner ||
      endpoint.access == Access::kApiKey) {
    errors.insert(403);
  }
  return errors;
}

void operation(const Endpoint& endpoint, JsonOut& out) {
  out.key(method_name(endpoint.method)).begin();
  out.key("tags").begin_list().text(endpoint.tag).end_list().text("summary", endpoint.summary);
  if (endpoint.access == Access::kApiKey) {
    out.key("security").raw(R"([{"key":[]},{"keyHeader":[]}])");
  } else if (endpoint.access != Access::kPublic) {
    out.key("security").raw(R"([{"token":[]}])");
  }
  out.key("parameters").begin_list();
  for (std::string_view rest = endpoint.path; rest.find('{') != std::string_view::npos;) {
    const std::size_t open = rest.find('{');
    const std::size_t close = rest.find('}', open);
    parameter("path", rest.substr(open + 1, close - open - 1), true, out, nullptr);
    rest = rest.substr(close);
  }
  if (endpoint.query != nullptr) {
    for (const Field& field : endpoint.query->fields)
      parameter("query", field.name, field.required, out, &field);
  }
  out.end_list();
  if (endpoint.body != nullptr) {
    out.key("requestBody").begin().flag("required", true).key("content").begin();
    out.key("application/json").begin().key("schema").raw(reference(endpoint.body->name)).end().end().end();
  }
  out.key("responses").begin();
  response(endpoint.status, "It was done",
           endpoint.reply == nullptr ? std::string() : reference(endpoint.reply->name), out);
  for (const int status : endpoint.also)
    response(status, "It was done", reference(endpoint.reply->name), out);
  for (const int error : errors_of(endpoint)) {
    response(error, "It was refused", reference(error == 422 ? "ValidationErrors" : "Refusal"), out);
  }
  out.end().end();
}

// Errors are not in the tables: their shapes are one for all (contract/agentkavach.md 1.2, 9).
constexpr std::string_view kErrorSchemas =
    R"("Refusal":{"type":"object","properties":{"detail":{"type":"string"}},"required":["detail"]},)"
    R"("ValidationErrors":{"type":"object","properties":{"detail":{"anyOf":[{"type":"string"},{"type":"array","items":)"
    R"({"type":"object","properties":{"type":{"type":"string"},"loc":{"type":"array"},"msg":{"type":"string"}},)"
    R"("required":["type","loc","msg"]}}]}},"required":["detail"]})";

}  // namespace

std::string openapi(std::span<const Endpoint* const> endpoints) {
  JsonOut out;
  out.begin().text("openapi", "3.1.0");
  out.key("info").begin().text("title", "Kavach").text("version", KAVACH_VERSION).end();
  out.key("paths").begin();
  Named named;
  std::set<std::string_view> done;
  for (const Endpoint* const endpoint : endpoints) {
    if (!done.insert(endpoint->path).second) continue;
    out.key(endpoint->path).begin();
    for (const Endpoint* const other : endpoints) {
      if (other->path != endpoint->path) continue;
      operation(*other, out);
      collect(other->body, named);
      collect(other->reply, named);
    }
    out.end();
  }
  out.end();
  out.key("components").begin();
  out.key("securitySchemes")
      .raw(R"({"token":{"type":"http","scheme":"bearer","bearerFormat":"JWT"},)"
           R"("key":{"type":"http","scheme":"bearer","bearerFormat":"API key"},)"
           R"("keyHeader":{"type":"apiKey","in":"header","name":"X-API-Key"}})");
  std::string schemas = "{" + std::string(kErrorSchemas);
  for (const auto& [name, schema] : named) {
    JsonOut one;
    describe(*schema, one);
    schemas += fmt::format(R"(,"{}":{})", name, one.take());
  }
  out.key("schemas").raw(schemas + "}");
  out.end().end();
  return out.take();
}

}  // namespace kavach::http
