// PriceList: the models' prices as GET /v1/pricing gives them, rendered once when their file is read.
#pragma once

#include <string>
#include <string_view>

#include "engine/result.h"

namespace kavach::http {

struct PriceList {
  std::string body;  // JSON
  std::string etag;  // with its quotes

  // Reads a file like configs/pricing.toml; every problem is told with file, line and column. An empty path
  // means the prices of that very file, built in.
  static Result<PriceList> load(const std::string& path);
};

// Whether an If-None-Match names `etag`: `*`, or a list of tags, weak ones too.
bool names_etag(std::string_view if_none_match, std::string_view etag) noexcept;

}  // namespace kavach::http
