-- See 0003_limits.sqlite.sql.
SELECT collate_as_bytes();

CREATE TRIGGER tg_org_limits_insert AFTER INSERT ON org_limits FOR EACH ROW
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_org_limits_delete AFTER DELETE ON org_limits FOR EACH ROW
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_org_limits_update AFTER UPDATE ON org_limits FOR EACH ROW
WHEN (OLD.org_id IS DISTINCT FROM NEW.org_id OR OLD.events_per_day IS DISTINCT FROM NEW.events_per_day
  OR OLD.max_agents IS DISTINCT FROM NEW.max_agents OR OLD.burst_per_minute IS DISTINCT FROM NEW.burst_per_minute)
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_budgets_insert AFTER INSERT ON budgets FOR EACH ROW
WHEN (NEW.kind = 'ak' AND NEW.agent_name = '')
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_budgets_delete AFTER DELETE ON budgets FOR EACH ROW
WHEN (OLD.kind = 'ak' AND OLD.agent_name = '')
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_budgets_update AFTER UPDATE ON budgets FOR EACH ROW
WHEN (((OLD.kind = 'ak' AND OLD.agent_name = '') OR (NEW.kind = 'ak' AND NEW.agent_name = ''))
  AND (OLD.kind IS DISTINCT FROM NEW.kind OR OLD.agent_name IS DISTINCT FROM NEW.agent_name OR OLD.org_id IS DISTINCT FROM NEW.org_id
    OR OLD.budget_type IS DISTINCT FROM NEW.budget_type OR OLD.period IS DISTINCT FROM NEW.period
    OR OLD.limit_value IS DISTINCT FROM NEW.limit_value))
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_agents_insert AFTER INSERT ON agents FOR EACH ROW
WHEN (NEW.killed_at_us IS NOT NULL)
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_agents_delete AFTER DELETE ON agents FOR EACH ROW
WHEN (OLD.killed_at_us IS NOT NULL)
EXECUTE FUNCTION directory_changed();
CREATE TRIGGER tg_agents_update AFTER UPDATE OF org_id, name, killed_at_us ON agents FOR EACH ROW
WHEN (OLD.killed_at_us IS DISTINCT FROM NEW.killed_at_us
  OR (NEW.killed_at_us IS NOT NULL AND (OLD.org_id IS DISTINCT FROM NEW.org_id OR OLD.name IS DISTINCT FROM NEW.name)))
EXECUTE FUNCTION directory_changed();
