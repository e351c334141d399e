// Keys of an organization, as its dashboard lists, revokes and rotates them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "sink/store/control/control_store.h"
#include "sink/store/store.h"

namespace kavach::sink {

struct KeyRow {
  std::string id;
  std::string name;
  std::string prefix;
  bool is_active = false;
  WallMicros created_at = 0;
  std::optional<WallMicros> last_used_at;
  std::int64_t failures = 0;
  std::optional<WallMicros> last_failed_at;
};

// Newest first, revoked ones too.
StoreResult<std::vector<KeyRow>> list_keys(ControlStore& store, std::string_view org_id);
StoreResult<KeyRow> add_key(ControlStore& store, std::string_view org_id, const NewKey& key);
// False: the organization has no such key.
StoreResult<bool> revoke_key(ControlStore& store, std::string_view org_id, std::string_view id);

enum class RotateAnswer : std::uint8_t { kRotated, kUnknown, kRevoked };
struct Rotated {
  RotateAnswer answer = RotateAnswer::kUnknown;
  KeyRow key = {};
};
// In one transaction: `key`, under the old one's name, takes its place.
StoreResult<Rotated> rotate_key(ControlStore& store, std::string_view org_id, std::string_view id,
                                NewKey key);

}  // namespace kavach::sink
