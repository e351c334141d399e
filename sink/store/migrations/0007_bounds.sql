-- usage_minute is kept for two days: what old rows are found by.
CREATE INDEX ix_usage_minute_at ON usage_minute(minute_s);
