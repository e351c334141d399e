// The text of configs/pricing.toml, as it was when Kavach was built.
#pragma once

#include <string_view>

namespace kavach::http {

extern const std::string_view kDefaultPricing;

}  // namespace kavach::http
