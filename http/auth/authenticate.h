// Who sends a request with an API key (contract/agentkavach.md 1.1 and 1.2): the same for every endpoint that
// takes one.
#pragma once

#include "engine/clock.h"
#include "http/auth/directory.h"
#include "http/auth/key_table.h"
#include "http/transport/handler.h"

namespace kavach::http {

// The request's key, when it is known, active, and its organization's subscription is too; its use is noted,
// and so is that of a revoked one. Null: `refusal` is the answer, 401 or 403, with views of constants.
// The shard's thread that owns `keys`.
const ApiKey* authenticate(KeyRing& keys, const Request& request, WallMicros now, Response& refusal);

}  // namespace kavach::http
