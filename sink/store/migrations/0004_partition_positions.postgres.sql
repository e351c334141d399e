SELECT collate_as_bytes();

-- Events by the day of their own time, so that old ones go with their partition instead of row by row. The key holds
-- the time too, as it must; an id never comes with two times. What is too old or too odd for a day of its own is in
-- events_default. Days are made by the store (sink/store/postgres/event_rows.cc).
ALTER TABLE events RENAME TO events_unpartitioned;
CREATE TABLE events (LIKE events_unpartitioned INCLUDING DEFAULTS INCLUDING CONSTRAINTS, PRIMARY KEY (id, ts_us))
  PARTITION BY RANGE (ts_us);
CREATE TABLE events_default PARTITION OF events DEFAULT;
INSERT INTO events SELECT * FROM events_unpartitioned;
DROP TABLE events_unpartitioned;
CREATE INDEX ix_events_org_ts ON events(org_id, ts_us, id);
CREATE INDEX ix_events_project_ts ON events(project_id, ts_us, id);
CREATE INDEX ix_events_agent_ts ON events(org_id, agent_name, ts_us, id);
CREATE INDEX ix_events_run ON events(org_id, run_id, ts_us) WHERE run_id IS NOT NULL;
CREATE INDEX ix_events_user_ts ON events(org_id, user_id, ts_us) WHERE user_id IS NOT NULL;
CREATE INDEX ix_events_tags_ts ON events(org_id, tag_set_id, ts_us) WHERE tag_set_id <> 0;
