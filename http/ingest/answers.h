// Answers: the bodies and header lines of POST /v1/ingest, rendered (contract/agentkavach.md 2.2 and 2.4).
//
// Pure functions of what the admission said. `out` is appended to; names are escaped as JSON strings.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "quota/admission.h"

namespace kavach::http {

// `{"accepted":1,"rejected":0,"mode":"direct","rejected_agents":[]}`; `rejected_agents` is a rendered JSON
// array.
void render_accepted(std::uint32_t accepted, std::uint32_t rejected, std::string_view mode,
                     std::string_view rejected_agents, std::string& out);

// The body of a 429. `rejected_agents` is a rendered JSON array, `killed` says that all in it were killed;
// both are only used by kAgentLimit.
void render_refusal(const quota::Refusal& refusal, std::string_view rejected_agents, bool killed,
                    std::string& out);

// `Retry-After: 1\r\n`.
void render_retry_after(std::int64_t seconds, std::string& out);

// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers): a line each, only limits that
// exist.
void render_rate_limits(const quota::RateState& state, std::string& out);

}  // namespace kavach::http
