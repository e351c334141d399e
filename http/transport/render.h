// Rendering: answers as bytes, from pieces that were prepared once.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "http/transport/handler.h"

namespace kavach::http {

struct RenderOptions {
  bool keep_alive = true;
  bool http10 = false;  // the peer must be told that the connection stays open
  bool head = false;    // answer to HEAD: everything but the body
};

// The transport's own refusal for lack of room, in the words of contract/agentkavach.md 2.4.
inline constexpr Response kBusy{
    .status = 429,
    .body = R"({"detail":"Server is busy, retry later","reason":"backpressure"})",
    .headers = "Retry-After: 1\r\n",
};

// Replaces `out`. `date` is an IMF-fixdate (RFC 9110 5.6.7).
void render_response(const Response& response, const RenderOptions& options, std::string_view date,
                     std::string& out);

// `{"detail":"<text>"}`, the shape of every error (contract/agentkavach.md 1.2).
std::string error_body(std::string_view detail);

// Writes IMF-fixdate of `seconds` since 1970 into `out` (29 characters and a NUL).
void format_http_date(std::int64_t seconds, char (&out)[32]);

}  // namespace kavach::http
