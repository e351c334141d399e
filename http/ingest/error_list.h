// ErrorList: the body of a 422, as FastAPI renders Pydantic's errors (contract/agentkavach.md section 9).
//
// Echoing what was sent amplifies: a body of empty events is answered with eight echoes of each. So the list
// is bounded: an echo that would take it past kEchoBytesMax is replaced by null, and past kListBytesMax
// further errors are not listed.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace kavach::http {

struct ValidationError {
  std::string_view type;
  std::string_view loc;  // the rendered elements, without the brackets: "body","events",0
  std::string_view msg;
  std::string_view ctx;  // rendered JSON; empty: none
};

class ErrorList {
 public:
  static constexpr std::size_t kEchoBytesMax = std::size_t{1} << 20;
  static constexpr std::size_t kListBytesMax = std::size_t{8} << 20;

  bool empty() const noexcept { return body_.empty(); }

  // `input` is the JSON that is echoed as it stands, such as `{}`.
  void add(const ValidationError& error, std::string_view input);
  // Echoes a JSON value of the request (checked: python_json.h) as Python would render it.
  void add_echo(const ValidationError& error, std::string_view value);
  // Echoes a text as a JSON string. REQUIRES: UTF-8.
  void add_echo_text(const ValidationError& error, std::string_view text);

  // `{"detail":[...]}`; leaves the list empty.
  std::string take_body();

 private:
  bool open(const ValidationError& error);
  void close(const ValidationError& error);
  bool may_echo(std::string_view bytes) const noexcept {
    return body_.size() + bytes.size() <= kEchoBytesMax;
  }

  std::string body_;
};

}  // namespace kavach::http
