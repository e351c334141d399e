// Validation of an ingest body as Pydantic v2 would do it with the model of contract/agentkavach.md 2.1: in
// lax mode, all errors at once, in the order of events and then of the fields' declaration.
//
// This is the slow pass: it sees only bodies that the fast one did not take.
#pragma once

#include <string>
#include <string_view>

#include "engine/event.h"
#include "http/ingest/batch_parser.h"
#include "http/ingest/error_list.h"

namespace kavach::http {

// Fills `batch.events` (which it clears first) from a document that check_json() has passed, or adds what is
// wrong to `errors`. Views point into `document` or are appended to `arena`, which must have document.size()
// bytes of room. Linear in the document.
void validate_batch(std::string_view document, const ParseLimits& limits, WallMicros now, Batch& batch,
                    std::string& arena, ErrorList& errors);

// The prompt as the contract stores it: at most bounds::kPromptCharsMax characters, a longer one cut so that
// it ends in `... [truncated]`. A cut one is built in `arena` and is shorter than what was sent.
std::string_view cut_prompt(std::string_view prompt, std::string& arena);

}  // namespace kavach::http
