#include "engine/result.h"

#include <stdexcept>
#include <system_error>

namespace kavach {

std::string error_text(int error) {
  return std::error_code(error, std::generic_category()).message();
}

void throw_exception_from_error(const Failure& failure, const boost::source_location&) {
  throw std::runtime_error(failure.message);
}

}  // namespace kavach
