#include "sink/store/control/accounts.h"

#include <utility>

namespace kavach::sink {
namespace {

constexpr std::string_view kAccountColumns =
    "SELECT u.id, m.org_id, m.role, u.email, u.first_name, u.last_name, o.name, o.tier, o.timezone, "
    "COALESCE(u.password_hash, ''), u.email_verified, "
    "CASE WHEN u.is_active = 1 AND u.is_deleted = 0 AND o.deleted_at_us IS NULL THEN 1 ELSE 0 END, "
    "u.token_epoch, u.created_at_us "
    "FROM users u JOIN org_members m ON m.user_id = u.id JOIN organizations o ON o.id = m.org_id ";

std::string_view name_of(CodePurpose purpose) noexcept {
  return purpose == CodePurpose::kVerify ? "verify" : "reset";
}

// The first one, if there is any.
template <typename... Values>
StoreResult<std::optional<Account>> find(ControlStore& store, const std::string& sql,
                                         const Values&... values) {
  std::optional<Account> found;
  const auto read = store.each(
      sql,
      [&](const Statement::Rows& row) {
        if (found) return;
        found = Account{.user_id = std::string(row.text(0)),
                        .org_id = std::string(row.text(1)),
                        .role = std::string(row.text(2)),
                        .email = std::string(row.text(3)),
                        .first_name = std::string(row.text(4)),
                        .last_name = std::string(row.text(5)),
                        .org_name = std::string(row.text(6)),
                        .tier = std::string(row.text(7)),
                        .timezone = std::string(row.text(8)),
                        .password_hash = std::string(row.text(9)),
                        .email_verified = row.integer(10) != 0,
                        .active = row.integer(11) != 0,
                        .token_epoch = row.integer(12),
                        .created_at = row.integer(13)};
      },
      values...);
  if (!read) return read.error();
  return found;
}

}  // namespace

StoreResult<bool> register_account(ControlStore& store, const NewAccount& account) {
  return store.in_transaction([&]() -> StoreResult<bool> {
    const WallMicros now = store.now();
    const std::string user = store.new_id().text();
    const std::string org = store.new_id().text();
    // The unique address decides, also between two at the same time.
    auto added = store.run(
        "INSERT INTO users (id, email, password_hash, first_name, last_name, created_at_us, updated_at_us) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6) ON CONFLICT (email) DO NOTHING",
        std::string_view(user), account.email, account.password_hash, account.first_name, account.last_name,
        now);
    if (!added) return added.error();
    if (*added == 0) return false;
    auto made = store.run(
        "INSERT INTO organizations (id, name, tier, created_at_us, updated_at_us) VALUES (?1, ?2, 'free', "
        "?3, "
        "?3)",
        std::string_view(org), account.org_name, now);
    if (!made) return made.error();
    made = store.run(
        "INSERT INTO projects (id, org_id, name, is_default, created_at_us, updated_at_us) "
        "VALUES (?1, ?2, 'Default', 1, ?3, ?3)",
        UuidText(store.new_id()), std::string_view(org), now);
    if (!made) return made.error();
    made = store.run(
        "INSERT INTO subscriptions (org_id, tier, status, updated_at_us) VALUES (?1, 'free', 'active', ?2)",
        std::string_view(org), now);
    if (!made) return made.error();
    made = store.run(
        "INSERT INTO org_members (org_id, user_id, role, created_at_us) VALUES (?1, ?2, 'owner', ?3)",
        std::string_view(org), std::string_view(user), now);
    if (!made) return made.error();
    return true;
  });
}

StoreResult<std::optional<Account>> account_by_email(ControlStore& store, std::string_view email) {
  static const std::string sql = std::string(kAccountColumns) +
                                 "WHERE u.email = ?1 AND u.is_deleted = 0 AND o.deleted_at_us IS NULL "
                                 "ORDER BY m.created_at_us";
  return find(store, sql, email);
}

StoreResult<std::optional<Account>> account_of(ControlStore& store, std::string_view user_id,
                                               std::string_view org_id) {
  static const std::string sql = std::string(kAccountColumns) + "WHERE u.id = ?1 AND m.org_id = ?2";
  return find(store, sql, user_id, org_id);
}

StoreResult<void> note_login(ControlStore& store, std::string_view user_id) {
  auto noted = store.run("UPDATE users SET last_login_at_us = ?2, last_active_at_us = ?2 WHERE id = ?1",
                         user_id, store.now());
  if (!noted) return noted.error();
  return {};
}

StoreResult<void> mark_verified(ControlStore& store, std::string_view user_id) {
  auto marked = store.run("UPDATE users SET email_verified = 1, updated_at_us = ?2 WHERE id = ?1", user_id,
                          store.now());
  if (!marked) return marked.error();
  return {};
}

StoreResult<std::int64_t> set_password(ControlStore& store, std::string_view user_id,
                                       std::string_view password_hash) {
  return store.in_transaction([&]() -> StoreResult<std::int64_t> {
    auto set = store.run(
        "UPDATE users SET password_hash = ?2, token_epoch = token_epoch + 1, updated_at_us = ?3 WHERE id = "
        "?1",
        user_id, password_hash, store.now());
    if (!set) return set.error();
    return store.scalar("SELECT COALESCE(MAX(token_epoch), 0) FROM users WHERE id = ?1", user_id);
  });
}

// --- codes -------------------------------------------------------------------------------------------------

StoreResult<void> put_code(ControlStore& store, std::string_view user_id, CodePurpose purpose,
                           std::string_view code_hash, WallMicros expires_at) {
  return store.in_transaction([&]() -> StoreResult<void> {
    auto put =
        store.run("DELETE FROM auth_codes WHERE user_id = ?1 AND purpose = ?2", user_id, name_of(purpose));
    if (!put) return put.error();
    put = store.run(
        "INSERT INTO auth_codes (id, user_id, purpose, code_hash, expires_at_us, created_at_us) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        UuidText(store.new_id()), user_id, name_of(purpose), code_hash, expires_at, store.now());
    if (!put) return put.error();
    return {};
  });
}

StoreResult<CodeAnswer> try_code(ControlStore& store, std::string_view user_id, CodePurpose purpose,
                                 std::string_view code_hash, std::int64_t tries_max) {
  return store.in_transaction([&]() -> StoreResult<CodeAnswer> {
    // The try is counted first: of tries at the same time no more than that many look at the code.
    auto counted = store.run(
        "UPDATE auth_codes SET attempts = attempts + 1 WHERE user_id = ?1 AND purpose = ?2 AND used_at_us IS "
        "NULL AND expires_at_us > ?3 AND attempts < ?4 AND code_hash IS NOT NULL",
        user_id, name_of(purpose), store.now(), tries_max);
    if (!counted) return counted.error();
    if (*counted == 0) return CodeAnswer::kNone;
    auto used = store.run(
        "DELETE FROM auth_codes WHERE user_id = ?1 AND purpose = ?2 AND used_at_us IS NULL AND code_hash = "
        "?3",
        user_id, name_of(purpose), code_hash);
    if (!used) return used.error();
    return *used > 0 ? CodeAnswer::kRight : CodeAnswer::kWrong;
  });
}

StoreResult<void> put_reset_token(ControlStore& store, std::string_view user_id, std::string_view token_hash,
                                  WallMicros expires_at) {
  return store.in_transaction([&]() -> StoreResult<void> {
    auto put = store.run("DELETE FROM auth_codes WHERE user_id = ?1 AND purpose = 'reset'", user_id);
    if (!put) return put.error();
    put = store.run(
        "INSERT INTO auth_codes (id, user_id, purpose, token_hash, expires_at_us, created_at_us) "
        "VALUES (?1, ?2, 'reset', ?3, ?4, ?5)",
        UuidText(store.new_id()), user_id, token_hash, expires_at, store.now());
    if (!put) return put.error();
    return {};
  });
}

StoreResult<std::optional<std::string>> take_reset_token(ControlStore& store, std::string_view token_hash) {
  return store.in_transaction([&]() -> StoreResult<std::optional<std::string>> {
    std::optional<std::string> user;
    auto read = store.each(
        "SELECT user_id FROM auth_codes WHERE token_hash = ?1 AND expires_at_us > ?2",
        [&](const Statement::Rows& row) { user = std::string(row.text(0)); }, token_hash, store.now());
    if (!read) return read.error();
    if (!user) return user;
    auto taken = store.run("DELETE FROM auth_codes WHERE token_hash = ?1", token_hash);
    if (!taken) return taken.error();
    if (*taken == 0) user.reset();  // somebody else was faster
    return user;
  });
}

// --- throttling --------------------------------------------------------------------------------------------

StoreResult<std::int64_t> count_in_window(ControlStore& store, std::string_view scope,
                                          std::int64_t window_s) {
  return store.in_transaction([&]() -> StoreResult<std::int64_t> {
    auto counted = store.run(
        "INSERT INTO rate_counters (scope, window_s, used) VALUES (?1, ?2, 1) "
        "ON CONFLICT (scope, window_s) DO UPDATE SET used = rate_counters.used + 1",
        scope, window_s);
    if (!counted) return counted.error();
    counted = store.run("DELETE FROM rate_counters WHERE scope = ?1 AND window_s < ?2", scope, window_s);
    if (!counted) return counted.error();
    return counted_in_window(store, scope, window_s);
  });
}

StoreResult<std::int64_t> counted_in_window(ControlStore& store, std::string_view scope,
                                            std::int64_t window_s) {
  return store.scalar("SELECT COALESCE(MAX(used), 0) FROM rate_counters WHERE scope = ?1 AND window_s = ?2",
                      scope, window_s);
}

}  // namespace kavach::sink
