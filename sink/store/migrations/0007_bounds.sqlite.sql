
-- Whoever stores events adds the runs that are new. A run goes to another agent when an earlier event of that one
-- comes in.
CREATE TRIGGER tg_runs_update AFTER UPDATE OF agent_name ON runs
WHEN OLD.agent_name <> NEW.agent_name
BEGIN
  UPDATE agents SET total_runs = total_runs - 1 WHERE org_id = OLD.org_id AND name = OLD.agent_name;
  UPDATE agents SET total_runs = total_runs + 1 WHERE org_id = NEW.org_id AND name = NEW.agent_name;
END;
CREATE TRIGGER tg_runs_delete AFTER DELETE ON runs
BEGIN
  UPDATE agents SET total_runs = total_runs - 1 WHERE org_id = OLD.org_id AND name = OLD.agent_name;
END;
