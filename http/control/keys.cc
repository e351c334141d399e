// The endpoints of API keys (contract/agentkavach.md section 5). A raw key is in one answer and nowhere else.
#include "sink/store/control/keys.h"
#include "http/auth/api_key.h"
#include "http/control/endpoint.h"

namespace kavach::http {
namespace {

using sink::KeyRow;

constexpr std::string_view kIdPrefix = "key_";
constexpr std::string_view kWhat = "API key";

constexpr Field kCreateFields[] = {
    {.name = "name", .text = {.chars_min = 1, .chars_max = 100}, .preset = R"("Default")"}};
constexpr Schema kCreate{"CreateKey", kCreateFields};

#define KAVACH_KEY_FIELDS                                                                          \
  {.name = "id", .required = true}, {.name = "name", .required = true},                            \
      {.name = "prefix", .required = true},                                                        \
      {.name = "is_active", .kind = FieldKind::kFlag, .required = true},                           \
      {.name = "created_at", .kind = FieldKind::kTimestamp, .required = true},                     \
      {.name = "last_used_at", .kind = FieldKind::kTimestamp, .required = true, .nullable = true}, \
      {.name = "auth_failures_count", .kind = FieldKind::kInteger, .required = true}, {            \
    .name = "last_failed_at", .kind = FieldKind::kTimestamp, .required = true, .nullable = true    \
  }
constexpr Field kKeyFields[] = {KAVACH_KEY_FIELDS};
constexpr Field kNewKeyFields[] = {KAVACH_KEY_FIELDS, {.name = "raw_key", .required = true}};
#undef KAVACH_KEY_FIELDS
constexpr Schema kKey{"Key", kKeyFields};
constexpr Schema kNewKey{"NewKey", kNewKeyFields};
constexpr Field kKeysFields[] = {{.name = "keys", .kind = FieldKind::kList, .required = true, .item = &kKey},
                                 {.name = "total", .kind = FieldKind::kInteger, .required = true}};
constexpr Schema kKeys{"Keys", kKeysFields};

void render(const KeyRow& key, std::string_view raw, JsonOut& out) {
  out.begin()
      .text("id", std::string(kIdPrefix) + key.id)
      .text("name", key.name)
      .text("prefix", key.prefix)
      .flag("is_active", key.is_active)
      .time("created_at", key.created_at)
      .time("last_used_at", key.last_used_at)
      .integer("auth_failures_count", key.failures)
      .time("last_failed_at", key.last_failed_at);
  if (!raw.empty()) out.text("raw_key", raw);
  out.end();
}

Reply key_reply(int status, const KeyRow& key, std::string_view raw) {
  JsonOut out;
  render(key, raw, out);
  return {.status = status, .body = out.take()};
}

// As the path has it: with the prefix or without.
std::string_view id_of(const Call& call) {
  std::string_view id = call.path[0];
  if (id.starts_with(kIdPrefix)) id.remove_prefix(kIdPrefix.size());
  return id;
}

Outcome create(Call& call) {
  const MintedKey minted = mint_key(call.services.config.node.environment, call.body.text("name"));
  auto added = sink::add_key(call.store, call.caller.org_id, minted.stored);
  if (!added) return added.error();
  call.services.directory_changed();
  return key_reply(201, *added, minted.raw);
}

Outcome list(Call& call) {
  auto keys = sink::list_keys(call.store, call.caller.org_id);
  if (!keys) return keys.error();
  JsonOut out;
  out.begin().key("keys").begin_list();
  for (const KeyRow& key : *keys) render(key, {}, out);
  out.end_list().integer("total", static_cast<std::int64_t>(keys->size())).end();
  return Reply{.body = out.take()};
}

Outcome revoke(Call& call) {
  auto revoked = sink::revoke_key(call.store, call.caller.org_id, id_of(call));
  if (!revoked) return revoked.error();
  if (!*revoked) return not_found(kWhat);
  call.services.directory_changed();
  return Reply{.status = 204};
}

Outcome rotate(Call& call) {
  const MintedKey minted = mint_key(call.services.config.node.environment, "");
  auto rotated = sink::rotate_key(call.store, call.caller.org_id, id_of(call), minted.stored);
  if (!rotated) return rotated.error();
  switch (rotated->answer) {
    case sink::RotateAnswer::kUnknown:
      return not_found(kWhat);
    case sink::RotateAnswer::kRevoked:
      return refusal(409, "API key is already revoked");
    case sink::RotateAnswer::kRotated:
      break;
  }
  call.services.directory_changed();
  return key_reply(200, rotated->key, minted.raw);
}

constexpr int kNotFound[] = {404};
constexpr int kNotFoundOrRevoked[] = {404, 409};
constexpr std::string_view kTag = "keys";
constexpr Endpoint kEndpoints[] = {
    {.method = Method::kPost,
     .path = "/v1/keys",
     .tag = kTag,
     .summary = "Make a key; it is shown once",
     .access = Access::kOwner,
     .body = &kCreate,
     .status = 201,
     .reply = &kNewKey,
     .run = create},
    {.method = Method::kGet,
     .path = "/v1/keys",
     .tag = kTag,
     .summary = "The organization's keys, newest first",
     .access = Access::kMember,
     .reply = &kKeys,
     .run = list},
    {.method = Method::kDelete,
     .path = "/v1/keys/{key_id}",
     .tag = kTag,
     .summary = "Revoke a key",
     .access = Access::kOwner,
     .status = 204,
     .errors = kNotFound,
     .run = revoke},
    {.method = Method::kPost,
     .path = "/v1/keys/{key_id}/rotate",
     .tag = kTag,
     .summary = "Put a new key into an old one's place",
     .access = Access::kOwner,
     .reply = &kNewKey,
     .errors = kNotFoundOrRevoked,
     .run = rotate},
};

}  // namespace

std::span<const Endpoint> key_endpoints() {
  return kEndpoints;
}

}  // namespace kavach::http
