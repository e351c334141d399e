// Result<T>: an expected failure is a value that the caller must look at.
//
// Cold paths (startup, files, SQL) use Failure, a sentence for a person. Hot paths use
// Result<T, SomeEnum> with an enum of their own module.
#pragma once

#include <boost/system/result.hpp>
#include <string>
#include <utility>

namespace kavach {

// Why something could not be done, in words for the operator. Never holds a secret.
struct Failure {
  std::string message;
  bool retryable = false;  // the same call may succeed later: too many open files, an I/O error
};

// Needed by boost::system::result for value(); we only use operator* and error() after a test.
[[noreturn]] void throw_exception_from_error(const Failure& failure, const boost::source_location& where);

template <typename T, typename E = Failure>
using Result = boost::system::result<T, E>;

using Status = Result<void, Failure>;

// What the system says of an errno. Any thread (strerror is not for any).
std::string error_text(int error);

inline Failure failure(std::string message) {
  return Failure{std::move(message)};
}
inline Failure passing_failure(std::string message) {
  return Failure{std::move(message), true};
}

}  // namespace kavach
