// Request parser: Beast's HTTP/1.1 grammar without Beast's message containers.
//
// Beast checks every byte of start line, fields and chunk framing; this class keeps views of the few fields
// that Kavach reads, into the buffer that it was given, and allocates nothing. What RFC 9112 asks of a server
// beyond the grammar (Host, obs-fold, one framing only, no line feed where other parsers would see a line
// end) is checked here too. A parser serves one request.
#pragma once

#include <boost/beast/http/basic_parser.hpp>
#include <cstdint>
#include <string_view>

#include "engine/padded_buffer.h"
#include "http/transport/handler.h"

namespace kavach::http {

class RequestParser final : public boost::beast::http::basic_parser<true> {
 public:
  using Error = boost::beast::error_code;
  using StringView = boost::beast::string_view;

  // Chunked content is appended to `chunked`. REQUIRES: `request` and `chunked` outlive the parser.
  RequestParser(Request& request, PaddedBuffer& chunked, std::uint32_t header_bytes_max,
                std::uint64_t body_bytes_max);

  // Parses the header in `bytes`, which hold the request from its first byte. Returns the header's length; 0
  // when it is not complete yet (then call again with more), or on an error.
  std::size_t parse_header(std::string_view bytes, Error& error);
  // Parses chunked content; returns how many bytes were used. The framing of one chunk, and the last one's
  // trailer, must fit where a header would (error header_limit), however it arrives.
  std::size_t parse_chunks(std::string_view bytes, Error& error);

  bool expects_continue() const noexcept { return expects_continue_; }
  // True when the peer speaks HTTP/1.0 and must be told that the connection stays open.
  bool is_http10() const noexcept { return version_ < 11; }
  // Length of start line and fields.
  std::size_t header_bytes() const noexcept { return bytes_.size(); }
  // After an error: the peer used a transfer coding other than chunked, which may be right but is not served.
  bool has_unknown_coding() const noexcept { return has_other_coding_; }
  // After an error: not exactly one Host, or one that names no host.
  bool has_bad_host() const noexcept { return has_bad_host_; }
  // After error::bad_version: the start line is well formed, but of HTTP/2.0 or another version.
  bool has_other_version() const noexcept;
  // 0 for none and for chunked content.
  std::uint64_t declared_length() const;

 private:
  using Base = boost::beast::http::basic_parser<true>;
  using Field = boost::beast::http::field;
  using Verb = boost::beast::http::verb;

  void on_request_impl(Verb method, StringView method_text, StringView target, int version,
                       Error& error) override;
  void on_field_impl(Field field, StringView name, StringView value, Error& error) override;
  void on_header_impl(Error& error) override;
  void on_body_init_impl(const boost::optional<std::uint64_t>& length, Error& error) override;
  std::size_t on_body_impl(StringView bytes, Error& error) override;
  void on_chunk_header_impl(std::uint64_t size, StringView extensions, Error& error) override;
  std::size_t on_chunk_body_impl(std::uint64_t remain, StringView bytes, Error& error) override;
  void on_finish_impl(Error& error) override;
  void on_response_impl(int, StringView, int, Error&) override {}

  Request& request_;
  PaddedBuffer& chunked_;
  const std::size_t framing_bytes_max_;
  const std::uint64_t chunk_bytes_max_;
  std::string_view bytes_;  // what parse_header() was given
  int version_ = 11;
  std::uint32_t hosts_ = 0;
  bool has_bad_host_ = false;
  bool expects_continue_ = false;
  bool header_done_ = false;
  bool has_other_coding_ = false;
};

}  // namespace kavach::http
