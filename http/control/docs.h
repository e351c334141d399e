// The description of the control API, for people and for tools: /openapi.json and a page at /docs.
#pragma once

#include <span>
#include <string>

#include "http/control/endpoint.h"
#include "http/transport/handler.h"

namespace kavach::http {

// A text that never changes.
class FixedHandler final : public Handler {
 public:
  FixedHandler(std::string body, std::string content_type)
      : body_(std::move(body)), content_type_(std::move(content_type)) {}
  void handle(Exchange& exchange) override {
    exchange.answer(
        {.body = body_, .content_type = content_type_, .headers = "Cache-Control: max-age=300\r\n"});
  }
  std::optional<Response> refuse_early(const Request&) override {
    return Response{.status = 413, .body = R"({"detail":"Request body too large"})"};
  }

 private:
  const std::string body_;
  const std::string content_type_;
};

// The table of endpoints as a page that needs nothing from elsewhere.
std::string docs_page(std::span<const Endpoint* const> endpoints);

}  // namespace kavach::http
