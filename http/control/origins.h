// Origins: the sites whose pages may call the control API from a browser (CORS, the Fetch standard).
//
// Constant after construction; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/result.h"

namespace kavach::http {

class Origins {
 public:
  // A list with commas of origins as browsers send them: `https://app.example.com`. Empty: none.
  static Result<Origins> parse(std::string_view list);

  bool empty() const noexcept { return origins_.empty(); }
  bool allow(std::string_view origin) const noexcept;
  // Lines for each answer: whoever keeps it must tell origins apart, and one that is allowed may read it.
  std::string headers(std::string_view origin) const;
  // For the answer to a preflight. `methods`: "GET, POST".
  std::string preflight_headers(std::string_view origin, std::string_view methods) const;

 private:
  std::vector<std::string> origins_;
};

}  // namespace kavach::http
