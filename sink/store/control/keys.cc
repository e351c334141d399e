#include "sink/store/control/keys.h"

#include <utility>

#include "engine/ids.h"

namespace kavach::sink {
namespace {

constexpr std::string_view kColumns =
    "SELECT id, name, prefix, is_active, created_at_us, last_used_at_us, auth_failures_count, "
    "last_failed_at_us "
    "FROM api_keys ";

KeyRow row_of(const Statement::Rows& row) {
  return {.id = std::string(row.text(0)),
          .name = std::string(row.text(1)),
          .prefix = std::string(row.text(2)),
          .is_active = row.integer(3) != 0,
          .created_at = row.integer(4),
          .last_used_at = row.optional_integer(5),
          .failures = row.integer(6),
          .last_failed_at = row.optional_integer(7)};
}

StoreResult<std::optional<KeyRow>> find(ControlStore& store, std::string_view org_id, std::string_view id) {
  static const std::string sql = std::string(kColumns) + "WHERE org_id = ?1 AND id = ?2 AND kind = 'ak'";
  std::optional<KeyRow> found;
  auto read = store.each(
      sql, [&](const Statement::Rows& row) { found = row_of(row); }, org_id, id);
  if (!read) return read.error();
  return found;
}

StoreResult<KeyRow> insert(ControlStore& store, std::string_view org_id, const NewKey& key) {
  KeyRow row{.id = store.new_id().text(),
             .name = key.name,
             .prefix = key.prefix,
             .is_active = true,
             .created_at = store.now(),
             .last_used_at = {},
             .last_failed_at = {}};
  auto added = store.run(
      "INSERT INTO api_keys (id, kind, org_id, project_id, name, prefix, key_hash, created_at_us) "
      "SELECT ?1, 'ak', ?2, p.id, ?3, ?4, ?5, ?6 FROM projects p WHERE p.org_id = ?2 AND p.is_default = 1",
      std::string_view(row.id), org_id, std::string_view(row.name), std::string_view(row.prefix),
      std::string_view(to_hex(key.digest.data(), key.digest.size())), row.created_at);
  if (!added) return added.error();
  if (*added != 1) return StoreFailure{"the organization has no default project", false};
  return row;
}

}  // namespace

StoreResult<std::vector<KeyRow>> list_keys(ControlStore& store, std::string_view org_id) {
  static const std::string sql =
      std::string(kColumns) + "WHERE org_id = ?1 AND kind = 'ak' ORDER BY created_at_us DESC, id DESC";
  std::vector<KeyRow> keys;
  auto read = store.each(
      sql, [&](const Statement::Rows& row) { keys.push_back(row_of(row)); }, org_id);
  if (!read) return read.error();
  return keys;
}

StoreResult<KeyRow> add_key(ControlStore& store, std::string_view org_id, const NewKey& key) {
  return store.in_transaction([&] { return insert(store, org_id, key); });
}

StoreResult<bool> revoke_key(ControlStore& store, std::string_view org_id, std::string_view id) {
  return store.in_transaction([&]() -> StoreResult<bool> {
    auto found = find(store, org_id, id);
    if (!found) return found.error();
    if (!*found) return false;
    auto revoked = store.run(
        "UPDATE api_keys SET is_active = 0, revoked_at_us = COALESCE(revoked_at_us, ?3) "
        "WHERE org_id = ?1 AND id = ?2 AND is_active = 1",
        org_id, id, store.now());
    if (!revoked) return revoked.error();
    return true;
  });
}

StoreResult<Rotated> rotate_key(ControlStore& store, std::string_view org_id, std::string_view id,
                                NewKey key) {
  return store.in_transaction([&]() -> StoreResult<Rotated> {
    auto found = find(store, org_id, id);
    if (!found) return found.error();
    if (!*found) return Rotated{};
    // Of two rotations at the same time one finds it revoked.
    auto revoked = store.run(
        "UPDATE api_keys SET is_active = 0, revoked_at_us = ?3 WHERE org_id = ?1 AND id = ?2 AND is_active = "
        "1",
        org_id, id, store.now());
    if (!revoked) return revoked.error();
    if (*revoked == 0) return Rotated{.answer = RotateAnswer::kRevoked};
    key.name = (*found)->name;
    auto added = insert(store, org_id, key);
    if (!added) return added.error();
    return Rotated{.answer = RotateAnswer::kRotated, .key = std::move(*added)};
  });
}

}  // namespace kavach::sink
