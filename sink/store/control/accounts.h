// Accounts: people, the organizations that they belong to, and the one-time codes that prove an address.
//
// Addresses are compared in lower case, as they are stored. Passwords and codes come and go as hashes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "engine/clock.h"
#include "engine/ids.h"
#include "sink/store/control/control_store.h"

namespace kavach::sink {

struct NewAccount {
  std::string_view email, password_hash, first_name, last_name, org_name;
};

// A person as a member of the organization that they own or were added to.
struct Account {
  std::string user_id;
  std::string org_id;
  std::string role;  // owner, admin, member
  std::string email;
  std::string first_name, last_name;
  std::string org_name, tier, timezone;
  std::string password_hash;
  bool email_verified = false;
  bool active = false;           // neither the person nor the organization is gone
  std::int64_t token_epoch = 0;  // tokens of an earlier one are void
  WallMicros created_at = 0;
};

// A person, an organization of theirs with its default project, free of charge. False: the address is taken.
StoreResult<bool> register_account(ControlStore& store, const NewAccount& account);
// Absent: nobody has this address, or they are gone.
StoreResult<std::optional<Account>> account_by_email(ControlStore& store, std::string_view email);
// By the ids of a token.
StoreResult<std::optional<Account>> account_of(ControlStore& store, std::string_view user_id,
                                               std::string_view org_id);
StoreResult<void> note_login(ControlStore& store, std::string_view user_id);
StoreResult<void> mark_verified(ControlStore& store, std::string_view user_id);
// Voids all tokens that are out, and returns the epoch of the next ones.
StoreResult<std::int64_t> set_password(ControlStore& store, std::string_view user_id,
                                       std::string_view password_hash);

// --- codes -------------------------------------------------------------------------------------------------

enum class CodePurpose : std::uint8_t { kVerify, kReset };

// A new code takes the place of the one that is out.
StoreResult<void> put_code(ControlStore& store, std::string_view user_id, CodePurpose purpose,
                           std::string_view code_hash, WallMicros expires_at);
enum class CodeAnswer : std::uint8_t { kRight, kWrong, kNone };  // kNone: none is out, or it has expired
// Counts the try; a code that was tried `tries_max` times is void. A right one is used up.
StoreResult<CodeAnswer> try_code(ControlStore& store, std::string_view user_id, CodePurpose purpose,
                                 std::string_view code_hash, std::int64_t tries_max);
// Instead of a code that was right: a token that may set a password once.
StoreResult<void> put_reset_token(ControlStore& store, std::string_view user_id, std::string_view token_hash,
                                  WallMicros expires_at);
// Whose token it is; it is used up. Absent: unknown, used or expired.
StoreResult<std::optional<std::string>> take_reset_token(ControlStore& store, std::string_view token_hash);

// --- throttling --------------------------------------------------------------------------------------------

// Counts one more of `scope` in the window that began at `window_s`; how many there are now. All nodes of a
// database count together.
StoreResult<std::int64_t> count_in_window(ControlStore& store, std::string_view scope, std::int64_t window_s);
// How many there are.
StoreResult<std::int64_t> counted_in_window(ControlStore& store, std::string_view scope,
                                            std::int64_t window_s);

}  // namespace kavach::sink
