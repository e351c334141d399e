-- What Kavach itself needs beside the contract's tables: how far each follower of a journal came, and one
-- number that changes whenever a key table in some process's memory is out of date.
-- SQLite's trigger syntax; Postgres has its own file.

CREATE TABLE shipper_positions (
  journal_id TEXT NOT NULL, follower TEXT NOT NULL, seq BIGINT NOT NULL, updated_at_us BIGINT NOT NULL,
  PRIMARY KEY (journal_id, follower));

CREATE TABLE directory_version (id INTEGER PRIMARY KEY CHECK (id = 1), version BIGINT NOT NULL);
INSERT INTO directory_version (id, version) VALUES (1, 1);

-- Only what authentication and admission read counts as a change: the use of a key is written once a minute and
-- must not make every process load its table again.
CREATE TRIGGER tg_organizations_insert AFTER INSERT ON organizations
BEGIN UPDATE directory_version SET version = version + 1; END;
CREATE TRIGGER tg_organizations_delete AFTER DELETE ON organizations
BEGIN UPDATE directory_version SET version = version + 1; END;
CREATE TRIGGER tg_organizations_update AFTER UPDATE ON organizations
WHEN OLD.id IS NOT NEW.id OR OLD.name IS NOT NEW.name OR OLD.tier IS NOT NEW.tier
  OR OLD.deleted_at_us IS NOT NEW.deleted_at_us
BEGIN UPDATE directory_version SET version = version + 1; END;

CREATE TRIGGER tg_projects_insert AFTER INSERT ON projects
BEGIN UPDATE directory_version SET version = version + 1; END;
CREATE TRIGGER tg_projects_delete AFTER DELETE ON projects
BEGIN UPDATE directory_version SET version = version + 1; END;
CREATE TRIGGER tg_projects_update AFTER UPDATE ON projects
WHEN OLD.id IS NOT NEW.id OR OLD.org_id IS NOT NEW.org_id OR OLD.is_default IS NOT NEW.is_default
  OR OLD.is_active IS NOT NEW.is_active
BEGIN UPDATE directory_version SET version = version + 1; END;

CREATE TRIGGER tg_api_keys_insert AFTER INSERT ON api_keys
BEGIN UPDATE directory_version SET version = version + 1; END;
CREATE TRIGGER tg_api_keys_delete AFTER DELETE ON api_keys
BEGIN UPDATE directory_version SET version = version + 1; END;
CREATE TRIGGER tg_api_keys_update AFTER UPDATE ON api_keys
WHEN OLD.id IS NOT NEW.id OR OLD.key_hash IS NOT NEW.key_hash OR OLD.is_active IS NOT NEW.is_active
  OR OLD.org_id IS NOT NEW.org_id OR OLD.project_id IS NOT NEW.project_id OR OLD.kind IS NOT NEW.kind
BEGIN UPDATE directory_version SET version = version + 1; END;

CREATE TRIGGER tg_subscriptions_insert AFTER INSERT ON subscriptions
BEGIN UPDATE directory_version SET version = version + 1; END;
CREATE TRIGGER tg_subscriptions_delete AFTER DELETE ON subscriptions
BEGIN UPDATE directory_version SET version = version + 1; END;
CREATE TRIGGER tg_subscriptions_update AFTER UPDATE ON subscriptions
WHEN OLD.org_id IS NOT NEW.org_id OR OLD.tier IS NOT NEW.tier OR OLD.status IS NOT NEW.status
BEGIN UPDATE directory_version SET version = version + 1; END;
