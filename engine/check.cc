#include "engine/check.h"

#include <cstdio>
#include <cstdlib>

namespace kavach {

void check_failed(const char* expression, const char* what, const char* file, int line) noexcept {
  std::fprintf(stderr, "kavach: bug: %s (%s) at %s:%d\n", what, expression, file, line);
  std::abort();
}

}  // namespace kavach
