// Assertions: a bug ends the process with its reason, in release too.
//
// KAVACH_CHECK stays on in every build. KAVACH_DCHECK is for hot loops and vanishes with NDEBUG.
// Expected failures (bad input, a full disk) are values (engine/result.h), never assertions.
#pragma once

namespace kavach {

// Prints the expression, what it means and where, then aborts.
[[noreturn]] void check_failed(const char* expression, const char* what, const char* file, int line) noexcept;

}  // namespace kavach

#define KAVACH_CHECK(expression, what)                               \
  do {                                                               \
    if (!(expression)) [[unlikely]]                                  \
      ::kavach::check_failed(#expression, what, __FILE__, __LINE__); \
  } while (false)

#ifdef NDEBUG
#define KAVACH_DCHECK(expression, what) static_cast<void>(0)
#else
#define KAVACH_DCHECK(expression, what) KAVACH_CHECK(expression, what)
#endif
