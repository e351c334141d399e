-- Changes of what admission reads make every process load its policies anew. Storing events must not: it
-- writes to agents all the time, but never to the columns that are named here.
CREATE TRIGGER tg_org_limits_insert AFTER INSERT ON org_limits
BEGIN UPDATE directory_version SET version = version + 1; END;
CREATE TRIGGER tg_org_limits_delete AFTER DELETE ON org_limits
BEGIN UPDATE directory_version SET version = version + 1; END;
CREATE TRIGGER tg_org_limits_update AFTER UPDATE ON org_limits
WHEN OLD.org_id IS NOT NEW.org_id OR OLD.events_per_day IS NOT NEW.events_per_day
  OR OLD.max_agents IS NOT NEW.max_agents OR OLD.burst_per_minute IS NOT NEW.burst_per_minute
BEGIN UPDATE directory_version SET version = version + 1; END;

-- Budgets of whole organizations; those of single agents refuse nothing.
CREATE TRIGGER tg_budgets_insert AFTER INSERT ON budgets
WHEN NEW.kind = 'ak' AND NEW.agent_name = ''
BEGIN UPDATE directory_version SET version = version + 1; END;
CREATE TRIGGER tg_budgets_delete AFTER DELETE ON budgets
WHEN OLD.kind = 'ak' AND OLD.agent_name = ''
BEGIN UPDATE directory_version SET version = version + 1; END;
CREATE TRIGGER tg_budgets_update AFTER UPDATE ON budgets
WHEN ((OLD.kind = 'ak' AND OLD.agent_name = '') OR (NEW.kind = 'ak' AND NEW.agent_name = ''))
  AND (OLD.kind IS NOT NEW.kind OR OLD.agent_name IS NOT NEW.agent_name OR OLD.org_id IS NOT NEW.org_id
    OR OLD.budget_type IS NOT NEW.budget_type OR OLD.period IS NOT NEW.period
    OR OLD.limit_value IS NOT NEW.limit_value)
BEGIN UPDATE directory_version SET version = version + 1; END;

CREATE TRIGGER tg_agents_insert AFTER INSERT ON agents
WHEN NEW.killed_at_us IS NOT NULL
BEGIN UPDATE directory_version SET version = version + 1; END;
CREATE TRIGGER tg_agents_delete AFTER DELETE ON agents
WHEN OLD.killed_at_us IS NOT NULL
BEGIN UPDATE directory_version SET version = version + 1; END;
CREATE TRIGGER tg_agents_update AFTER UPDATE OF org_id, name, killed_at_us ON agents
WHEN OLD.killed_at_us IS NOT NEW.killed_at_us
  OR (NEW.killed_at_us IS NOT NULL AND (OLD.org_id IS NOT NEW.org_id OR OLD.name IS NOT NEW.name))
BEGIN UPDATE directory_version SET version = version + 1; END;
