-- What Kavach itself needs beside the contract's tables, in Postgres's trigger syntax: see 0002_kavach.sqlite.sql.

CREATE TABLE shipper_positions (
  journal_id TEXT NOT NULL, follower TEXT NOT NULL, seq BIGINT NOT NULL, updated_at_us BIGINT NOT NULL,
  PRIMARY KEY (journal_id, follower));

CREATE TABLE directory_version (id INTEGER PRIMARY KEY CHECK (id = 1), version BIGINT NOT NULL);
INSERT INTO directory_version (id, version) VALUES (1, 1);

-- Texts are compared as bytes, as in SQLite, whatever the database's collation. To be called where tables were made,
-- before their triggers.
CREATE FUNCTION collate_as_bytes() RETURNS void LANGUAGE plpgsql AS $body$
DECLARE command text;
BEGIN
  FOR command IN
    SELECT format('ALTER TABLE %I ', table_name)
      || string_agg(format('ALTER COLUMN %I TYPE text COLLATE "C"', column_name), ', ')
    FROM information_schema.columns
    WHERE table_schema = current_schema() AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'
      AND table_name IN (SELECT tablename FROM pg_tables WHERE schemaname = current_schema())
    GROUP BY table_name ORDER BY table_name
  LOOP
    EXECUTE command;
  END LOOP;
END;
$body$;
SELECT collate_as_bytes();

-- Whoever listens to the channel looks at once; the notice goes out with the commit.
CREATE FUNCTION directory_changed() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  UPDATE directory_version SET version = version + 1;
  PERFORM pg_notify('kavach_directory', '');
  RETURN NULL;
END;
$body$;

CREATE TRIGGER tg_organizations_insert AFTER INSERT ON organizations FOR EACH ROW
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_organizations_delete AFTER DELETE ON organizations FOR EACH ROW
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_organizations_update AFTER UPDATE ON organizations FOR EACH ROW
WHEN (OLD.id IS DISTINCT FROM NEW.id OR OLD.name IS DISTINCT FROM NEW.name OR OLD.tier IS DISTINCT FROM NEW.tier
  OR OLD.deleted_at_us IS DISTINCT FROM NEW.deleted_at_us)
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_projects_insert AFTER INSERT ON projects FOR EACH ROW
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_projects_delete AFTER DELETE ON projects FOR EACH ROW
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_projects_update AFTER UPDATE ON projects FOR EACH ROW
WHEN (OLD.id IS DISTINCT FROM NEW.id OR OLD.org_id IS DISTINCT FROM NEW.org_id OR OLD.is_default IS DISTINCT FROM NEW.is_default
  OR OLD.is_active IS DISTINCT FROM NEW.is_active)
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_api_keys_insert AFTER INSERT ON api_keys FOR EACH ROW
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_api_keys_delete AFTER DELETE ON api_keys FOR EACH ROW
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_api_keys_update AFTER UPDATE ON api_keys FOR EACH ROW
WHEN (OLD.id IS DISTINCT FROM NEW.id OR OLD.key_hash IS DISTINCT FROM NEW.key_hash OR OLD.is_active IS DISTINCT FROM NEW.is_active
  OR OLD.org_id IS DISTINCT FROM NEW.org_id OR OLD.project_id IS DISTINCT FROM NEW.project_id OR OLD.kind IS DISTINCT FROM NEW.kind)
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_subscriptions_insert AFTER INSERT ON subscriptions FOR EACH ROW
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_subscriptions_delete AFTER DELETE ON subscriptions FOR EACH ROW
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_subscriptions_update AFTER UPDATE ON subscriptions FOR EACH ROW
WHEN (OLD.org_id IS DISTINCT FROM NEW.org_id OR OLD.tier IS DISTINCT FROM NEW.tier OR OLD.status IS DISTINCT FROM NEW.status)
EXECUTE FUNCTION directory_changed();
