#include "http/ingest/error_list.h"

#include <utility>

#include "http/ingest/python_json.h"

namespace kavach::http {

// Everything up to the input's value. False when the list is full.
bool ErrorList::open(const ValidationError& error) {
  if (body_.size() > kListBytesMax) return false;
  body_ += body_.empty() ? R"({"detail":[)" : ",";
  body_ += R"({"type":")";
  body_ += error.type;
  body_ += R"(","loc":[)";
  body_ += error.loc;
  body_ += R"(],"msg":")";
  body_ += error.msg;
  body_ += R"(","input":)";
  return true;
}

void ErrorList::close(const ValidationError& error) {
  if (!error.ctx.empty()) (body_ += R"(,"ctx":)") += error.ctx;
  body_ += '}';
}

void ErrorList::add(const ValidationError& error, std::string_view input) {
  if (!open(error)) return;
  body_ += input;
  close(error);
}

void ErrorList::add_echo(const ValidationError& error, std::string_view value) {
  if (!open(error)) return;
  if (may_echo(value)) {
    render_json(value, body_);
  } else {
    body_ += "null";
  }
  close(error);
}

void ErrorList::add_echo_text(const ValidationError& error, std::string_view text) {
  if (!open(error)) return;
  if (may_echo(text)) {
    render_json_string(text, body_);
  } else {
    body_ += "null";
  }
  close(error);
}

std::string ErrorList::take_body() {
  body_ += "]}";
  return std::exchange(body_, {});
}

}  // namespace kavach::http
