// What an alert configuration's target is stored as, beside its sealed text.
#pragma once

#include <string>
#include <string_view>

namespace kavach::http {

// SHA-256 in hexadecimal, by which equal targets are found; of none: empty.
std::string hash_of_target(std::string_view target);

}  // namespace kavach::http
