-- usage_minute is kept for two days: what old rows are found by.
CREATE INDEX ix_usage_minute_at ON usage_minute(minute_s);

-- An agent's errors, however few they are among its events.
CREATE INDEX ix_events_agent_errors ON events(org_id, agent_name, ts_us, id) WHERE is_error = 1;

-- How many runs are the agent's, so that nobody counts them.
ALTER TABLE agents ADD COLUMN total_runs BIGINT NOT NULL DEFAULT 0;
UPDATE agents SET total_runs =
  (SELECT COUNT(*) FROM runs WHERE runs.org_id = agents.org_id AND runs.agent_name = agents.name);
