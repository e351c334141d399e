#include "engine/result.h"

#include <stdexcept>

namespace kavach {

void throw_exception_from_error(const Failure& failure, const boost::source_location&) {
  throw std::runtime_error(failure.message);
}

}  // namespace kavach
