#include "http/transport/request_parser.h"

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/error.hpp>

namespace kavach::http {
namespace {

namespace beast = boost::beast;
using HttpError = beast::http::error;

std::string_view plain(beast::string_view s) {
  return {s.data(), s.size()};
}

Method method_of(beast::http::verb name) {
  using beast::http::verb;
  switch (name) {
    case verb::get:
      return Method::kGet;
    case verb::head:
      return Method::kHead;
    case verb::post:
      return Method::kPost;
    case verb::put:
      return Method::kPut;
    case verb::patch:
      return Method::kPatch;
    case verb::delete_:
      return Method::kDelete;
    case verb::options:
      return Method::kOptions;
    default:
      return Method::kOther;
  }
}

// origin-form `/path?query`, absolute-form `http://host/path?query` (RFC 9112 3.2), or `*` for OPTIONS.
bool split_target(std::string_view target, Request& request) {
  if (target.empty()) return false;
  if (target.front() != '/' && target != "*") {
    const std::size_t scheme_end = target.find("://");
    if (scheme_end == std::string_view::npos) return false;
    const std::string_view scheme = target.substr(0, scheme_end);
    if (!beast::iequals(scheme, "http") && !beast::iequals(scheme, "https")) return false;
    const std::size_t path = target.find_first_of("/?", scheme_end + 3);
    if (path == scheme_end + 3) return false;  // no host
    target = path == std::string_view::npos ? "/" : target.substr(path);
  }
  const std::size_t question = target.find('?');
  request.path = target.substr(0, question);
  if (request.path.empty()) request.path = "/";
  request.query = question == std::string_view::npos ? std::string_view{} : target.substr(question + 1);
  return true;
}

// A field that decides who asks or what the body means must not say two things (RFC 9110 5.3).
void take_once(std::string_view& field, std::string_view text, RequestParser::Error& error) {
  if (field.data() != nullptr) error = HttpError::bad_field;
  field = text;
}

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

bool is_http_version(std::string_view text) {
  const auto digit_at = [&](std::size_t i) { return text[i] >= '0' && text[i] <= '9'; };
  return text.size() == 8 && text.starts_with("HTTP/") && digit_at(5) && text[6] == '.' && digit_at(7);
}

// The characters of `uri-host [":" port]` (RFC 3986 3.2.2); may be empty.
bool is_host(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           std::string_view("-._~%!$&'()*+,;=:[]").find(c) != std::string_view::npos;
  });
}

}  // namespace

RequestParser::RequestParser(Request& request, PaddedBuffer& chunked, std::uint32_t header_bytes_max,
                             std::uint64_t body_bytes_max)
    : request_(request),
      chunked_(chunked),
      framing_bytes_max_(header_bytes_max),
      chunk_bytes_max_(body_bytes_max) {
  header_limit(header_bytes_max);
  // The connection compares the declared length itself, so that it can answer before it reads.
  body_limit(boost::none);
}

std::size_t RequestParser::parse_header(std::string_view bytes, Error& error) {
  bytes_ = bytes;
  const std::size_t used = put(boost::asio::const_buffer(bytes.data(), bytes.size()), error);
  if (error) return 0;
  const bool is_11 = version_ >= 11;
  // RFC 9112 3.2: exactly one Host in HTTP/1.1, at most one in HTTP/1.0, and none that names no host.
  has_bad_host_ = has_bad_host_ || (is_11 && hosts_ != 1) || hosts_ > 1;
  if (has_bad_host_) error = HttpError::bad_field;
  // RFC 9112 6.1: chunked is a matter of HTTP/1.1, and the only coding we know.
  if (has_other_coding_ || (chunked() && !is_11)) error = HttpError::bad_transfer_encoding;
  return error ? 0 : used;
}

std::size_t RequestParser::parse_chunks(std::string_view bytes, Error& error) {
  std::size_t used = 0;
  while (!is_done() && used < bytes.size()) {
    const std::string_view piece = bytes.substr(used, framing_bytes_max_);
    const std::size_t n = put(boost::asio::const_buffer(piece.data(), piece.size()), error);
    used += n;
    if (error == HttpError::need_more) {
      error = {};
      if (piece.size() == framing_bytes_max_) error = HttpError::header_limit;
      break;
    }
    if (error) break;
  }
  return used;
}

bool RequestParser::has_other_version() const noexcept {
  const std::string_view line = bytes_.substr(0, bytes_.find("\r\n"));
  return is_http_version(line.substr(line.find(' ', line.find(' ') + 1) + 1));
}

std::uint64_t RequestParser::declared_length() const {
  return content_length().value_or(0);
}

void RequestParser::on_request_impl(Verb method, StringView, StringView target, int version, Error& error) {
  request_.method = method_of(method);
  version_ = version;
  if (!split_target(plain(target), request_)) error = HttpError::bad_target;
}

void RequestParser::on_field_impl(Field known, StringView name, StringView value, Error& error) {
  if (header_done_) return;  // a trailer means nothing to us
  const std::string_view text = plain(value);
  // A folded line: Beast joins it in a buffer of its own, which the view would outlive, or skips to the first
  // line with text. RFC 9112 5.2 lets a server refuse it, and so we do.
  const char* const name_end = name.data() + name.size();
  const bool is_joined = text.data() < bytes_.data() || text.data() > bytes_.data() + bytes_.size();
  if (is_joined || std::find(name_end, text.data(), '\n') != text.data()) {
    error = HttpError::bad_obs_fold;
    return;
  }
  using beast::http::field;
  switch (known) {
    case field::host:
      ++hosts_;
      has_bad_host_ = has_bad_host_ || !is_host(text);
      break;
    case field::authorization:
      take_once(request_.authorization, text, error);
      break;
    case field::content_type:
      take_once(request_.content_type, text, error);
      break;
    case field::content_encoding:
      take_once(request_.content_encoding, text, error);
      break;
    case field::if_none_match:
      if (request_.if_none_match.data() == nullptr) request_.if_none_match = text;
      break;
    case field::origin:
      if (request_.origin.data() == nullptr) request_.origin = text;
      break;
    case field::access_control_request_method:
      if (request_.preflight_method.data() == nullptr) request_.preflight_method = text;
      break;
    case field::expect:
      expects_continue_ = beast::iequals(text, "100-continue");
      break;
    case field::transfer_encoding:
      has_other_coding_ |= !beast::iequals(text, "chunked");
      break;
    case field::unknown:
      if (beast::iequals(name, "X-API-Key")) take_once(request_.api_key, text, error);
      if (beast::iequals(name, "X-Forwarded-For")) request_.forwarded_for = text;
      if (beast::iequals(name, "Stripe-Signature")) take_once(request_.stripe_signature, text, error);
      break;
    default:
      break;
  }
}

void RequestParser::on_header_impl(Error&) {
  header_done_ = true;
}

void RequestParser::on_body_init_impl(const boost::optional<std::uint64_t>&, Error&) {}

// Content of a declared length is never parsed: the connection reads it in place.
std::size_t RequestParser::on_body_impl(StringView bytes, Error&) {
  return bytes.size();
}

void RequestParser::on_chunk_header_impl(std::uint64_t size, StringView extensions, Error& error) {
  if (size > chunk_bytes_max_ - chunked_.size()) error = HttpError::body_limit;
  // Beast lets a quoted value hold anything; a parser in front of us may take a line feed for the line's end.
  if (std::any_of(extensions.begin(), extensions.end(), [](char c) { return is_control(c) && c != '\t'; })) {
    error = HttpError::bad_chunk_extension;
  }
}

std::size_t RequestParser::on_chunk_body_impl(std::uint64_t, StringView bytes, Error&) {
  chunked_.append(plain(bytes));
  return bytes.size();
}

void RequestParser::on_finish_impl(Error&) {}

}  // namespace kavach::http
