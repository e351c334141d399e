// Schema: what a body, a query or an answer has in it, as a table of fields.
//
// One table serves three: validation (422 in the contract's shape, all errors at once, in the order of
// declaration), the handler, which asks for values by name, and /openapi.json. Fields that are not declared
// are ignored.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "engine/clock.h"
#include "http/ingest/checks.h"

namespace kavach::http {

enum class FieldKind : std::uint8_t {
  kText,
  kEmail,  // comes out in lower case
  kInteger,
  kNumber,
  kFlag,
  kChoice,  // one of `choices`
  kTimestamp,
  kObject,  // as `item` says
  kList,    // of objects as `item` says
  kTexts,   // a list of texts; in answers only
};

struct Schema;

struct Field {
  std::string_view name;
  FieldKind kind = FieldKind::kText;
  bool required = false;
  bool nullable = false;
  TextRule text = {};
  // Of numbers; each as Pydantic prints it, absent: none.
  std::optional<double> greater_than = {};
  std::optional<double> at_least = {};
  std::optional<double> at_most = {};
  std::span<const std::string_view> choices = {};
  const Schema* item = nullptr;
  std::string_view preset = {};  // the default, as JSON
  std::string_view help = {};
};

struct Schema {
  std::string_view name;
  std::span<const Field> fields;
};

// The values of one object. Texts live as long as the form.
class Form {
 public:
  // False also for an explicit null.
  bool has(std::string_view name) const noexcept { return find(name) != nullptr; }
  // REQUIRES (here and below): required, with a default, or has(name).
  std::string_view text(std::string_view name) const noexcept { return get<std::string>(name); }
  std::int64_t integer(std::string_view name) const noexcept { return get<std::int64_t>(name); }
  double number(std::string_view name) const noexcept { return get<double>(name); }
  bool flag(std::string_view name) const noexcept { return get<bool>(name); }
  WallMicros timestamp(std::string_view name) const noexcept { return get<std::int64_t>(name); }
  const Form& object(std::string_view name) const noexcept { return get<std::vector<Form>>(name).front(); }
  std::span<const Form> list(std::string_view name) const noexcept { return get<std::vector<Form>>(name); }

  std::string_view text_or(std::string_view name, std::string_view otherwise) const noexcept {
    return has(name) ? text(name) : otherwise;
  }

 private:
  friend class FormReader;
  using Value = std::variant<bool, std::int64_t, double, std::string, std::vector<Form>>;
  const Value* find(std::string_view name) const noexcept;
  template <typename T>
  const T& get(std::string_view name) const noexcept {
    return std::get<T>(*find(name));
  }
  std::vector<std::pair<std::string_view, Value>> values_;  // names are the schema's
};

// Reads one request's body and query, and gathers everything that is wrong with them.
class FormReader {
 public:
  // `json`: the Content-Type is JSON, or there is none.
  void read_body(const Schema& schema, std::string_view raw, bool json, Form& form);
  // `query`: as it was sent, behind the '?'. Of a name that comes twice the last one counts.
  void read_query(const Schema& schema, std::string_view query, Form& form);
  // An error of a handler's own about a value that was read: `Value error, <text>`.
  void refuse(std::string_view where, std::string_view name, std::string_view text, std::string_view value);

  bool is_sound() const noexcept { return errors_.empty(); }
  // The body of the 422.
  std::string take_errors() { return errors_.take_body(); }

 private:
  void read_object(const Schema& schema, std::string_view value, Form& form);
  void read_field(const Field& field, std::string_view value, Form& form);
  void read_number(const Field& field, std::string_view value, Form& form);
  void read_email(const Field& field, std::string_view value, Form& form);
  bool in_bounds(const Field& field, double number, std::string_view value);
  void set_presets(const Field& field, Form& form);

  ErrorList errors_;
  std::string arena_;
  Checks checks_{arena_, errors_};
};

// A query's or a form's percent-encoded text; '+' is a space.
std::string decode_query(std::string_view text);
// A path's.
std::string decode_path(std::string_view text);

}  // namespace kavach::http
