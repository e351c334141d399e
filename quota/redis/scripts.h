// The Lua scripts of quota/redis/*.lua, whose text is part of the program.
#pragma once

#include <string>
#include <string_view>

namespace kavach::quota {

struct RedisScript {
  std::string_view text;
  std::string sha1;  // by which EVALSHA names it
};

// Live as long as the process.
const RedisScript& renew_script();
const RedisScript& agents_script();

}  // namespace kavach::quota
