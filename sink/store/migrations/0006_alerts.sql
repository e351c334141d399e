-- The secret that a webhook's delivery is signed with, sealed; beside it, what old rows are found by.
ALTER TABLE deliveries ADD COLUMN secret_enc TEXT;
CREATE INDEX ix_deliveries_created ON deliveries(created_at_us);
CREATE INDEX ix_alert_events_created ON alert_events(created_at_us);
CREATE INDEX ix_alert_fired_at ON alert_fired(fired_at_us);
