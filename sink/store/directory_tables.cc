#include "sink/store/directory_tables.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "engine/log.h"

namespace kavach::sink {
namespace {

constexpr std::string_view kKeyIdPrefix = "key_";

StoreFailure refused(std::string message) {
  return {std::move(message), false};
}

int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

std::optional<KeyDigest> parse_digest(std::string_view hex) noexcept {
  KeyDigest digest;
  if (hex.size() != digest.size() * 2) return std::nullopt;
  for (std::size_t i = 0; i < digest.size(); ++i) {
    const int high = hex_digit(hex[2 * i]);
    const int low = hex_digit(hex[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    digest[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return digest;
}

// `only`: the one organization to read, or all.
StoreResult<std::vector<OrgRecord>> load_orgs(Connection& connection, const Uuid* only) {
  auto select = connection.prepare(fmt::format(
      "SELECT o.id, p.id, o.name, o.tier, COALESCE(s.status, 'active'), o.deleted_at_us, l.events_per_day, "
      "l.max_agents, l.burst_per_minute "
      "FROM organizations o LEFT JOIN projects p ON p.org_id = o.id AND p.is_default = 1 "
      "LEFT JOIN subscriptions s ON s.org_id = o.id LEFT JOIN org_limits l ON l.org_id = o.id {}",
      only != nullptr ? "WHERE o.id = ?1" : ""));
  if (!select) return select.error();
  std::vector<OrgRecord> orgs;
  const auto take = [&orgs](const Statement::Rows& row) {
    const auto id = Uuid::parse(row.text(0));
    const auto project_id = Uuid::parse(row.text(1));
    if (!id || !project_id) {
      log::warning("store: organization '{}' has no usable id or default project; it is left out",
                   row.text(0));
      return;
    }
    orgs.push_back({*id,
                    *project_id,
                    std::string(row.text(2)),
                    std::string(row.text(3)),
                    std::string(row.text(4)),
                    !row.is_null(5),
                    {row.optional_integer(6), row.optional_integer(7), row.optional_integer(8)}});
  };
  auto read = only != nullptr ? select->for_each(take, UuidText(*only)) : select->for_each(take);
  if (!read) return read.error();
  return orgs;
}

StoreResult<std::vector<KeyRecord>> load_keys(Connection& connection) {
  auto select = connection.prepare(
      "SELECT id, org_id, project_id, key_hash, is_active FROM api_keys WHERE kind = 'ak'");
  if (!select) return select.error();
  std::vector<KeyRecord> keys;
  auto read = select->for_each([&keys](const Statement::Rows& row) {
    const auto id = Uuid::parse(row.text(0));
    const auto org_id = Uuid::parse(row.text(1));
    const auto project_id = Uuid::parse(row.text(2));
    const auto digest = parse_digest(row.text(3));
    if (!id || !org_id || !project_id || !digest) {
      log::warning("store: API key '{}' has an unusable id or hash; it is left out", row.text(0));
      return;
    }
    keys.push_back({*id, *org_id, *project_id, *digest, row.integer(4) != 0});
  });
  if (!read) return read.error();
  return keys;
}

StoreResult<std::vector<AgentName>> load_killed_agents(Connection& connection, const Uuid* only) {
  auto select = connection.prepare(
      fmt::format("SELECT org_id, name FROM agents WHERE killed_at_us IS NOT NULL {} ORDER BY org_id, name",
                  only != nullptr ? "AND org_id = ?1" : ""));
  if (!select) return select.error();
  std::vector<AgentName> agents;
  const auto take = [&agents](const Statement::Rows& row) {
    const auto org_id = Uuid::parse(row.text(0));
    if (org_id) agents.push_back({*org_id, std::string(row.text(1))});
  };
  auto read = only != nullptr ? select->for_each(take, UuidText(*only)) : select->for_each(take);
  if (!read) return read.error();
  return agents;
}

StoreResult<Uuid> insert_key(Connection& connection, const Uuid& org_id, const Uuid& project_id,
                             const NewKey& key, WallMicros now, Random& random) {
  auto insert = connection.prepare(
      "INSERT INTO api_keys (id, kind, org_id, project_id, name, prefix, key_hash, created_at_us) "
      "VALUES (?1, 'ak', ?2, ?3, ?4, ?5, ?6, ?7)");
  if (!insert) return insert.error();
  const Uuid id = make_uuid7(now, random);
  const std::string digest = to_hex(key.digest.data(), key.digest.size());
  auto inserted =
      insert->run(UuidText(id), UuidText(org_id), UuidText(project_id), std::string_view(key.name),
                  std::string_view(key.prefix), std::string_view(digest), now);
  if (!inserted) return inserted.error();
  return id;
}

struct FoundKeys {
  std::optional<KeySummary> active;
  std::size_t active_count = 0;
  std::size_t revoked_count = 0;
};

StoreResult<FoundKeys> find_keys(Connection& connection, std::string_view column, std::string_view value) {
  auto select = connection.prepare(
      fmt::format("SELECT id, org_id, name, prefix, is_active FROM api_keys WHERE {} = ?1", column));
  if (!select) return select.error();
  FoundKeys found;
  auto rows = select->rows(value);
  for (;;) {
    const auto row = rows.next();
    if (!row) return row.error();
    if (!*row) return found;
    if (rows.integer(4) == 0) {
      ++found.revoked_count;
      continue;
    }
    ++found.active_count;
    const auto id = Uuid::parse(rows.text(0));
    const auto org_id = Uuid::parse(rows.text(1));
    if (!id || !org_id) return refused(fmt::format("API key '{}' has an unusable id", rows.text(0)));
    found.active = KeySummary{*id, *org_id, std::string(rows.text(2)), std::string(rows.text(3)), true};
  }
}

}  // namespace

StoreResult<Directory> load_directory(Connection& connection) {
  auto transaction = Transaction::begin_read(connection);
  if (!transaction) return transaction.error();
  auto select_version = connection.prepare("SELECT version FROM directory_version WHERE id = 1");
  if (!select_version) return select_version.error();
  auto version = select_version->scalar();
  if (!version) return version.error();

  Directory directory;
  directory.version = static_cast<std::uint64_t>(*version);
  auto orgs = load_orgs(connection, nullptr);
  if (!orgs) return orgs.error();
  auto keys = load_keys(connection);
  if (!keys) return keys.error();
  auto budgets = load_budgets(connection, nullptr);
  if (!budgets) return budgets.error();
  auto killed_agents = load_killed_agents(connection, nullptr);
  if (!killed_agents) return killed_agents.error();
  directory.orgs = std::move(*orgs);
  directory.keys = std::move(*keys);
  directory.budgets = std::move(*budgets);
  directory.killed_agents = std::move(*killed_agents);
  if (auto ended = transaction->commit(); !ended) return ended.error();
  return directory;
}

StoreResult<std::vector<BudgetRecord>> load_budgets(Connection& connection, const Uuid* only) {
  auto select = connection.prepare(
      fmt::format("SELECT id, org_id, budget_type, period, limit_value, unit FROM budgets "
                  "WHERE kind = 'ak' AND agent_name = '' {} ORDER BY org_id, budget_type, period",
                  only != nullptr ? "AND org_id = ?1" : ""));
  if (!select) return select.error();
  std::vector<BudgetRecord> budgets;
  const auto take = [&budgets](const Statement::Rows& row) {
    const auto org_id = Uuid::parse(row.text(1));
    if (!org_id) return;
    budgets.push_back({std::string(row.text(0)), *org_id, std::string(row.text(2)), std::string(row.text(3)),
                       row.number(4), std::string(row.text(5))});
  };
  auto read = only != nullptr ? select->for_each(take, UuidText(*only)) : select->for_each(take);
  if (!read) return read.error();
  return budgets;
}

StoreResult<OrgDetails> load_org(Connection& connection, const Uuid& org_id) {
  auto orgs = load_orgs(connection, &org_id);
  if (!orgs) return orgs.error();
  if (orgs->empty() || orgs->front().deleted) return no_org(org_id);
  auto budgets = load_budgets(connection, &org_id);
  if (!budgets) return budgets.error();
  auto killed_agents = load_killed_agents(connection, &org_id);
  if (!killed_agents) return killed_agents.error();
  OrgDetails details{std::move(orgs->front()), std::move(*budgets), {}};
  for (AgentName& agent : *killed_agents) details.killed_agents.push_back(std::move(agent.name));
  return details;
}

StoreFailure no_org(const Uuid& org_id) {
  return {fmt::format("there is no organization {}", org_id.text()), false};
}

StoreResult<void> record_key_use(Connection& connection, std::span<const KeyUse> uses) {
  if (uses.empty()) return {};
  auto transaction = Transaction::begin_write(connection);
  if (!transaction) return transaction.error();
  auto update = connection.prepare(
      "UPDATE api_keys SET "
      "last_used_at_us = CASE WHEN ?2 > COALESCE(last_used_at_us, 0) THEN ?2 ELSE last_used_at_us END, "
      "auth_failures_count = CASE WHEN auth_failures_count > 9223372036854775807 - ?3 THEN "
      "9223372036854775807 "
      "ELSE auth_failures_count + ?3 END, "
      "last_failed_at_us = CASE WHEN ?4 > COALESCE(last_failed_at_us, 0) THEN ?4 ELSE last_failed_at_us END "
      "WHERE id = ?1");
  if (!update) return update.error();
  for (const KeyUse& use : uses) {
    auto updated = update->run(UuidText(use.key_id), use.last_used_us, use.failures, use.last_failed_us);
    if (!updated) return updated.error();
  }
  return transaction->commit();
}

StoreResult<void> record_rejections(Connection& connection, std::span<const RejectedAgent> rejected) {
  if (rejected.empty()) return {};
  auto transaction = Transaction::begin_write(connection);
  if (!transaction) return transaction.error();
  auto update = connection.prepare(
      "UPDATE agents SET rejected_at_us = CASE WHEN ?3 > COALESCE(rejected_at_us, 0) THEN ?3 ELSE "
      "rejected_at_us END WHERE org_id = ?1 AND name = ?2");
  if (!update) return update.error();
  auto insert = connection.prepare(
      "INSERT INTO agents (org_id, name, first_seen_us, rejected_at_us) SELECT o.id, ?2, ?3, ?3 FROM "
      "organizations o WHERE o.id = ?1 AND (SELECT COUNT(*) FROM agents WHERE org_id = ?1 AND last_event_us "
      "IS NULL) < 1000 ON CONFLICT (org_id, name) DO NOTHING");
  if (!insert) return insert.error();
  for (const RejectedAgent& agent : rejected) {
    const UuidText org(agent.org_id);
    auto updated = update->run(org, std::string_view(agent.name), agent.at_us);
    if (!updated) return updated.error();
    if (*updated > 0) continue;
    auto inserted = insert->run(org, std::string_view(agent.name), agent.at_us);
    if (!inserted) return inserted.error();
  }
  return transaction->commit();
}

StoreResult<OrgRecord> create_org(Connection& connection, std::string_view name, std::string_view tier,
                                  const NewKey& first_key, WallMicros now, Random& random) {
  auto transaction = Transaction::begin_write(connection);
  if (!transaction) return transaction.error();
  auto insert_org = connection.prepare(
      "INSERT INTO organizations (id, name, tier, created_at_us, updated_at_us) VALUES (?1, ?2, ?3, ?4, ?4)");
  if (!insert_org) return insert_org.error();
  auto insert_project = connection.prepare(
      "INSERT INTO projects (id, org_id, name, is_default, created_at_us, updated_at_us) "
      "VALUES (?1, ?2, 'Default', 1, ?3, ?3)");
  if (!insert_project) return insert_project.error();
  auto insert_subscription = connection.prepare(
      "INSERT INTO subscriptions (org_id, tier, status, updated_at_us) VALUES (?1, ?2, 'active', ?3)");
  if (!insert_subscription) return insert_subscription.error();

  OrgRecord org{make_uuid7(now, random),
                make_uuid7(now, random),
                std::string(name),
                std::string(tier),
                "active",
                false,
                {}};
  const UuidText org_id(org.id);
  if (auto ran = insert_org->run(org_id, name, tier, now); !ran) return ran.error();
  if (auto ran = insert_project->run(UuidText(org.project_id), org_id, now); !ran) return ran.error();
  if (auto ran = insert_subscription->run(org_id, tier, now); !ran) return ran.error();
  if (auto key = insert_key(connection, org.id, org.project_id, first_key, now, random); !key)
    return key.error();
  if (auto committed = transaction->commit(); !committed) return committed.error();
  return org;
}

StoreResult<KeySummary> create_key(Connection& connection, const Uuid& org_id, const NewKey& key,
                                   WallMicros now, Random& random) {
  auto transaction = Transaction::begin_write(connection);
  if (!transaction) return transaction.error();
  auto select_project = connection.prepare(
      "SELECT p.id FROM projects p JOIN organizations o ON o.id = p.org_id "
      "WHERE o.id = ?1 AND o.deleted_at_us IS NULL AND p.is_default = 1");
  if (!select_project) return select_project.error();
  std::optional<Uuid> project_id;
  {
    const UuidText org(org_id);
    auto rows = select_project->rows(org);
    auto row = rows.next();
    if (!row) return row.error();
    if (*row) project_id = Uuid::parse(rows.text(0));
  }
  if (!project_id) return no_org(org_id);

  auto id = insert_key(connection, org_id, *project_id, key, now, random);
  if (!id) return id.error();
  if (auto committed = transaction->commit(); !committed) return committed.error();
  return KeySummary{*id, org_id, key.name, key.prefix, true};
}

StoreResult<KeySummary> revoke_key(Connection& connection, std::string_view id_or_prefix, WallMicros now) {
  auto transaction = Transaction::begin_write(connection);
  if (!transaction) return transaction.error();

  const bool marked = id_or_prefix.starts_with(kKeyIdPrefix);
  const auto id = Uuid::parse(marked ? id_or_prefix.substr(kKeyIdPrefix.size()) : id_or_prefix);
  auto found =
      id ? find_keys(connection, "id", UuidText(*id).view()) : find_keys(connection, "prefix", id_or_prefix);
  if (!found) return found.error();
  if (found->active_count > 1) {
    return refused(fmt::format("'{}' is ambiguous: {} active API keys have this prefix; name one by its id",
                               id_or_prefix, found->active_count));
  }
  if (!found->active && found->revoked_count > 0) {
    return refused(fmt::format("API key '{}' is already revoked", id_or_prefix));
  }
  if (!found->active) return refused(fmt::format("API key '{}' was not found", id_or_prefix));

  auto update = connection.prepare("UPDATE api_keys SET is_active = 0, revoked_at_us = ?2 WHERE id = ?1");
  if (!update) return update.error();
  if (auto ran = update->run(UuidText(found->active->id), now); !ran) return ran.error();
  if (auto committed = transaction->commit(); !committed) return committed.error();
  found->active->active = false;
  return *found->active;
}

}  // namespace kavach::sink
