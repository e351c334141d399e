-- What limits need beside the contract's tables, in the SQL that SQLite and Postgres share.

-- An organization's own limits: NULL as its tier has it, -1 without limit.
CREATE TABLE org_limits (
  org_id TEXT PRIMARY KEY REFERENCES organizations(id),
  events_per_day BIGINT CHECK (events_per_day >= -1), max_agents BIGINT CHECK (max_agents >= -1),
  burst_per_minute BIGINT CHECK (burst_per_minute >= -1), updated_at_us BIGINT NOT NULL);

-- What one node (by its journal's id) admitted of an organization's events, by the time of acceptance: a late
-- event counts on the day on which it was let in. `period` is daily, monthly or total; `number` counts days or
-- months since 1970, and is 0 for total.
CREATE TABLE node_usage (
  node TEXT NOT NULL, org_id TEXT NOT NULL, period TEXT NOT NULL, number BIGINT NOT NULL,
  events BIGINT NOT NULL, cost_nano BIGINT NOT NULL, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
  duration_ms BIGINT NOT NULL,
  PRIMARY KEY (node, org_id, period, number));
CREATE INDEX ix_node_usage_period ON node_usage(period, number);

-- When the last event of an agent was accepted: activity counts from there, not from the event's own time.
ALTER TABLE agents ADD COLUMN last_received_us BIGINT;
CREATE INDEX ix_agents_killed ON agents(org_id, name) WHERE killed_at_us IS NOT NULL;
