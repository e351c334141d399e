
-- See 0007_bounds.sqlite.sql.
CREATE FUNCTION run_left_agent() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  UPDATE agents SET total_runs = total_runs - 1 WHERE org_id = OLD.org_id AND name = OLD.agent_name;
  IF TG_OP = 'UPDATE' THEN
    UPDATE agents SET total_runs = total_runs + 1 WHERE org_id = NEW.org_id AND name = NEW.agent_name;
  END IF;
  RETURN NULL;
END;
$body$;
CREATE TRIGGER tg_runs_update AFTER UPDATE OF agent_name ON runs FOR EACH ROW
WHEN (OLD.agent_name <> NEW.agent_name)
EXECUTE FUNCTION run_left_agent();
CREATE TRIGGER tg_runs_delete AFTER DELETE ON runs FOR EACH ROW
EXECUTE FUNCTION run_left_agent();
