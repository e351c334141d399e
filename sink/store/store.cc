#include "sink/store/store.h"

#include <stdexcept>

namespace kavach::sink {

void throw_exception_from_error(const StoreFailure& failure, const boost::source_location&) {
  throw std::runtime_error(failure.message);
}

}  // namespace kavach::sink
