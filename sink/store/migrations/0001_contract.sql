CREATE TABLE organizations (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, tier TEXT NOT NULL DEFAULT 'free', lg_tier TEXT,
  timezone TEXT NOT NULL DEFAULT 'UTC', deleted_at_us BIGINT, created_at_us BIGINT NOT NULL, updated_at_us BIGINT NOT NULL);

CREATE TABLE users (
  id TEXT PRIMARY KEY, email TEXT NOT NULL UNIQUE, password_hash TEXT, first_name TEXT NOT NULL DEFAULT '', last_name TEXT NOT NULL DEFAULT '',
  name TEXT, avatar_url TEXT, email_verified INTEGER NOT NULL DEFAULT 0, is_active INTEGER NOT NULL DEFAULT 1, is_superuser INTEGER NOT NULL DEFAULT 0,
  signup_system TEXT NOT NULL DEFAULT 'ak', auth_provider TEXT NOT NULL DEFAULT 'email', user_number BIGINT UNIQUE, milestone_badge TEXT,
  terms_version TEXT, privacy_version TEXT, token_epoch BIGINT NOT NULL DEFAULT 0, is_deleted INTEGER NOT NULL DEFAULT 0, deleted_at_us BIGINT,
  last_login_at_us BIGINT, last_active_at_us BIGINT, created_at_us BIGINT NOT NULL, updated_at_us BIGINT NOT NULL);
CREATE INDEX ix_users_created ON users(created_at_us);

CREATE TABLE org_members (
  org_id TEXT NOT NULL REFERENCES organizations(id), user_id TEXT NOT NULL REFERENCES users(id),
  role TEXT NOT NULL, created_at_us BIGINT NOT NULL, PRIMARY KEY (org_id, user_id));
CREATE INDEX ix_org_members_user ON org_members(user_id);

CREATE TABLE projects (
  id TEXT PRIMARY KEY, org_id TEXT NOT NULL REFERENCES organizations(id), name TEXT NOT NULL, description TEXT, owner_id TEXT REFERENCES users(id),
  is_default INTEGER NOT NULL DEFAULT 0, is_active INTEGER NOT NULL DEFAULT 1,
  monthly_budget DOUBLE PRECISION, budget_currency TEXT NOT NULL DEFAULT 'USD', budget_mode TEXT NOT NULL DEFAULT 'off', budget_thresholds TEXT,
  created_at_us BIGINT NOT NULL, updated_at_us BIGINT NOT NULL);
CREATE UNIQUE INDEX ux_projects_default ON projects(org_id) WHERE is_default = 1;
CREATE INDEX ix_projects_owner ON projects(owner_id);
CREATE INDEX ix_projects_created ON projects(created_at_us);

CREATE TABLE project_members (
  id TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES projects(id), user_id TEXT NOT NULL REFERENCES users(id), role TEXT NOT NULL,
  invited_by TEXT, invited_at_us BIGINT NOT NULL, accepted_at_us BIGINT, UNIQUE (project_id, user_id));
CREATE INDEX ix_project_members_user ON project_members(user_id);

CREATE TABLE project_invitations (
  id TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES projects(id), email TEXT NOT NULL, role TEXT NOT NULL, invited_by TEXT,
  invited_at_us BIGINT NOT NULL, UNIQUE (project_id, email));
CREATE INDEX ix_invitations_email ON project_invitations(email);

CREATE TABLE sessions (
  id TEXT PRIMARY KEY, user_id TEXT NOT NULL REFERENCES users(id), token_hash TEXT NOT NULL UNIQUE, device_info TEXT, ip_address TEXT,
  expires_at_us BIGINT NOT NULL, is_revoked INTEGER NOT NULL DEFAULT 0, created_at_us BIGINT NOT NULL, last_used_at_us BIGINT NOT NULL);
CREATE INDEX ix_sessions_user ON sessions(user_id, expires_at_us);

CREATE TABLE auth_codes (
  id TEXT PRIMARY KEY, user_id TEXT NOT NULL REFERENCES users(id), purpose TEXT NOT NULL, code_hash TEXT, token_hash TEXT UNIQUE,
  attempts INTEGER NOT NULL DEFAULT 0, expires_at_us BIGINT NOT NULL, used_at_us BIGINT, created_at_us BIGINT NOT NULL);
CREATE UNIQUE INDEX ux_auth_codes_live ON auth_codes(user_id, purpose) WHERE used_at_us IS NULL;

CREATE TABLE api_keys (
  id TEXT PRIMARY KEY, kind TEXT NOT NULL, org_id TEXT NOT NULL REFERENCES organizations(id), project_id TEXT NOT NULL REFERENCES projects(id),
  name TEXT NOT NULL, prefix TEXT NOT NULL, key_hash TEXT NOT NULL UNIQUE, is_active INTEGER NOT NULL DEFAULT 1,
  auth_failures_count BIGINT NOT NULL DEFAULT 0, last_failed_at_us BIGINT, last_used_at_us BIGINT, created_at_us BIGINT NOT NULL, revoked_at_us BIGINT);
CREATE INDEX ix_api_keys_org ON api_keys(org_id, kind, created_at_us);
CREATE UNIQUE INDEX ux_api_keys_project ON api_keys(project_id) WHERE kind = 'ac' AND is_active = 1;

CREATE TABLE agents (
  org_id TEXT NOT NULL, name TEXT NOT NULL, provider TEXT, model TEXT, first_seen_us BIGINT NOT NULL, last_event_us BIGINT,
  killed_at_us BIGINT, kill_reason TEXT, rejected_at_us BIGINT,
  total_events BIGINT NOT NULL DEFAULT 0, total_errors BIGINT NOT NULL DEFAULT 0, total_cost_nano BIGINT NOT NULL DEFAULT 0,
  total_input_tokens BIGINT NOT NULL DEFAULT 0, total_output_tokens BIGINT NOT NULL DEFAULT 0, total_duration_ms BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (org_id, name));
CREATE INDEX ix_agents_last ON agents(org_id, last_event_us);

CREATE TABLE tag_sets (
  id BIGINT PRIMARY KEY, org_id TEXT NOT NULL, hash TEXT NOT NULL, tags TEXT NOT NULL, UNIQUE (org_id, hash));
CREATE TABLE tag_set_items (
  org_id TEXT NOT NULL, tag_key TEXT NOT NULL, tag_value TEXT NOT NULL, tag_set_id BIGINT NOT NULL, PRIMARY KEY (org_id, tag_key, tag_value, tag_set_id));

CREATE TABLE events (
  id TEXT PRIMARY KEY, org_id TEXT NOT NULL, project_id TEXT NOT NULL, ingest_system TEXT NOT NULL, ts_us BIGINT NOT NULL, received_at_us BIGINT NOT NULL,
  agent_name TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, user_id TEXT, session_id TEXT, run_id TEXT,
  input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL, cached_tokens BIGINT, cache_write_tokens BIGINT,
  cost_nano BIGINT NOT NULL, cost_source TEXT NOT NULL, duration_ms BIGINT NOT NULL DEFAULT 0, is_error INTEGER NOT NULL DEFAULT 0, error TEXT,
  dedup_key TEXT, tag_set_id BIGINT NOT NULL DEFAULT 0, input_hash TEXT, prompt TEXT, metadata TEXT);
CREATE INDEX ix_events_org_ts ON events(org_id, ts_us, id);
CREATE INDEX ix_events_project_ts ON events(project_id, ts_us, id);
CREATE INDEX ix_events_agent_ts ON events(org_id, agent_name, ts_us, id);
CREATE INDEX ix_events_run ON events(org_id, run_id, ts_us) WHERE run_id IS NOT NULL;
CREATE INDEX ix_events_user_ts ON events(org_id, user_id, ts_us) WHERE user_id IS NOT NULL;
CREATE INDEX ix_events_tags_ts ON events(org_id, tag_set_id, ts_us) WHERE tag_set_id <> 0;

CREATE TABLE dedup_keys (
  project_id TEXT NOT NULL, dedup_key TEXT NOT NULL, seen_at_us BIGINT NOT NULL, PRIMARY KEY (project_id, dedup_key));
CREATE INDEX ix_dedup_seen ON dedup_keys(seen_at_us);

CREATE TABLE runs (
  org_id TEXT NOT NULL, run_id TEXT NOT NULL, agent_name TEXT NOT NULL, first_event_us BIGINT NOT NULL, last_event_us BIGINT NOT NULL,
  last_is_error INTEGER NOT NULL DEFAULT 0, total_events BIGINT NOT NULL DEFAULT 0, error_count BIGINT NOT NULL DEFAULT 0, cost_nano BIGINT NOT NULL DEFAULT 0,
  input_tokens BIGINT NOT NULL DEFAULT 0, output_tokens BIGINT NOT NULL DEFAULT 0, llm_duration_ms BIGINT NOT NULL DEFAULT 0, models TEXT NOT NULL DEFAULT '[]',
  PRIMARY KEY (org_id, run_id));
CREATE INDEX ix_runs_agent ON runs(org_id, agent_name, first_event_us);

-- Roll-ups. usage_minute is kept 48 h, usage_hourly for ever (or 400 days), the others likewise.
CREATE TABLE usage_minute (
  project_id TEXT NOT NULL, minute_s BIGINT NOT NULL, agent_name TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, org_id TEXT NOT NULL,
  events BIGINT NOT NULL, errors BIGINT NOT NULL, cost_nano BIGINT NOT NULL, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
  duration_ms BIGINT NOT NULL, timed_events BIGINT NOT NULL,
  PRIMARY KEY (project_id, minute_s, agent_name, provider, model));
CREATE INDEX ix_usage_minute_org ON usage_minute(org_id, minute_s);

CREATE TABLE usage_hourly (
  project_id TEXT NOT NULL, hour_s BIGINT NOT NULL, agent_name TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, org_id TEXT NOT NULL,
  events BIGINT NOT NULL, errors BIGINT NOT NULL, cost_nano BIGINT NOT NULL, error_cost_nano BIGINT NOT NULL, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
  cached_tokens BIGINT NOT NULL, cache_write_tokens BIGINT NOT NULL, duration_ms BIGINT NOT NULL, timed_events BIGINT NOT NULL, max_output_tokens BIGINT NOT NULL, last_event_us BIGINT NOT NULL,
  PRIMARY KEY (project_id, hour_s, agent_name, provider, model));
CREATE INDEX ix_usage_hourly_org ON usage_hourly(org_id, hour_s);
CREATE INDEX ix_usage_hourly_agent ON usage_hourly(org_id, agent_name, hour_s);

CREATE TABLE usage_hourly_dim (
  org_id TEXT NOT NULL, hour_s BIGINT NOT NULL, agent_name TEXT NOT NULL, provider TEXT NOT NULL, user_id TEXT NOT NULL DEFAULT '', tag_set_id BIGINT NOT NULL DEFAULT 0,
  events BIGINT NOT NULL, cost_nano BIGINT NOT NULL, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
  PRIMARY KEY (org_id, hour_s, agent_name, provider, user_id, tag_set_id));
CREATE INDEX ix_usage_dim_user ON usage_hourly_dim(org_id, user_id, hour_s);
CREATE INDEX ix_usage_dim_tags ON usage_hourly_dim(org_id, tag_set_id, hour_s);

CREATE TABLE usage_daily_platform (
  day_s BIGINT NOT NULL, project_id TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, org_id TEXT NOT NULL,
  events BIGINT NOT NULL, errors BIGINT NOT NULL, cost_nano BIGINT NOT NULL, tokens BIGINT NOT NULL, PRIMARY KEY (day_s, project_id, provider, model));

CREATE TABLE input_patterns (
  project_id TEXT NOT NULL, agent_name TEXT NOT NULL, model TEXT NOT NULL, input_hash TEXT NOT NULL, occurrences BIGINT NOT NULL, cost_nano BIGINT NOT NULL,
  first_seen_us BIGINT NOT NULL, last_seen_us BIGINT NOT NULL, PRIMARY KEY (project_id, agent_name, model, input_hash));

CREATE TABLE baselines (
  project_id TEXT NOT NULL, agent_name TEXT NOT NULL, model TEXT NOT NULL, samples BIGINT NOT NULL, avg_cost DOUBLE PRECISION NOT NULL, sd_cost DOUBLE PRECISION NOT NULL,
  avg_latency_ms DOUBLE PRECISION NOT NULL, sd_latency_ms DOUBLE PRECISION NOT NULL, avg_daily_calls DOUBLE PRECISION NOT NULL, sd_daily_calls DOUBLE PRECISION NOT NULL,
  avg_error_rate DOUBLE PRECISION NOT NULL, computed_at_us BIGINT NOT NULL, PRIMARY KEY (project_id, agent_name, model));

CREATE TABLE rate_counters (
  scope TEXT NOT NULL, window_s BIGINT NOT NULL, used BIGINT NOT NULL, PRIMARY KEY (scope, window_s));

CREATE TABLE budgets (
  id TEXT PRIMARY KEY, kind TEXT NOT NULL, org_id TEXT NOT NULL REFERENCES organizations(id), agent_name TEXT NOT NULL DEFAULT '', user_id TEXT NOT NULL DEFAULT '', tags TEXT NOT NULL DEFAULT '{}',
  budget_type TEXT NOT NULL DEFAULT 'cost', period TEXT NOT NULL, limit_value DOUBLE PRECISION NOT NULL, unit TEXT NOT NULL DEFAULT 'usd',
  alert_threshold DOUBLE PRECISION, enforcement TEXT NOT NULL DEFAULT 'warn', source TEXT NOT NULL DEFAULT 'dashboard', created_at_us BIGINT NOT NULL, updated_at_us BIGINT NOT NULL);
CREATE UNIQUE INDEX ux_budgets_ak ON budgets(org_id, agent_name, budget_type, period) WHERE kind = 'ak';
CREATE INDEX ix_budgets_org ON budgets(org_id, kind);

CREATE TABLE budget_counters (
  budget_id TEXT NOT NULL REFERENCES budgets(id) ON DELETE CASCADE, period_key TEXT NOT NULL, used BIGINT NOT NULL, updated_at_us BIGINT NOT NULL, PRIMARY KEY (budget_id, period_key));

CREATE TABLE alert_configs (
  id TEXT PRIMARY KEY, kind TEXT NOT NULL, org_id TEXT NOT NULL REFERENCES organizations(id), agent_name TEXT NOT NULL DEFAULT '', name TEXT, trigger_type TEXT NOT NULL DEFAULT 'budget_threshold',
  channels TEXT NOT NULL, threshold DOUBLE PRECISION NOT NULL, budget_type TEXT NOT NULL DEFAULT 'cost', target_enc TEXT, target_hash TEXT NOT NULL DEFAULT '', secret_enc TEXT, filters TEXT NOT NULL DEFAULT '{}',
  is_active INTEGER NOT NULL DEFAULT 1, source TEXT NOT NULL DEFAULT 'dashboard', created_at_us BIGINT NOT NULL);
CREATE UNIQUE INDEX ux_alert_configs_ak ON alert_configs(org_id, agent_name, channels, threshold, budget_type, target_hash) WHERE kind = 'ak';
CREATE INDEX ix_alert_configs_org ON alert_configs(org_id, kind);

CREATE TABLE alert_fired (
  config_id TEXT NOT NULL, scope_key TEXT NOT NULL, period_key TEXT NOT NULL, fired_at_us BIGINT NOT NULL, PRIMARY KEY (config_id, scope_key, period_key));

CREATE TABLE alert_events (
  id TEXT PRIMARY KEY, org_id TEXT NOT NULL, project_id TEXT, agent_name TEXT, config_id TEXT, channel TEXT NOT NULL, threshold DOUBLE PRECISION, budget_type TEXT, level TEXT,
  current_value DOUBLE PRECISION, limit_value DOUBLE PRECISION, period TEXT, period_key TEXT, message TEXT, delivered INTEGER NOT NULL DEFAULT 0, error TEXT, created_at_us BIGINT NOT NULL);
CREATE INDEX ix_alert_events_org ON alert_events(org_id, created_at_us);
CREATE INDEX ix_alert_events_agent ON alert_events(org_id, agent_name, created_at_us);

CREATE TABLE webhooks (
  id TEXT PRIMARY KEY, org_id TEXT NOT NULL REFERENCES organizations(id), url TEXT NOT NULL, events TEXT NOT NULL, secret_enc TEXT, is_active INTEGER NOT NULL DEFAULT 1, created_at_us BIGINT NOT NULL);
CREATE INDEX ix_webhooks_org ON webhooks(org_id);

CREATE TABLE deliveries (
  id TEXT PRIMARY KEY, org_id TEXT NOT NULL, channel TEXT NOT NULL, ref_id TEXT, url TEXT NOT NULL, body TEXT NOT NULL, headers TEXT NOT NULL DEFAULT '{}', attempts INTEGER NOT NULL DEFAULT 0,
  next_at_us BIGINT, status TEXT NOT NULL DEFAULT 'pending', last_status INTEGER, last_error TEXT, created_at_us BIGINT NOT NULL);
CREATE INDEX ix_deliveries_due ON deliveries(next_at_us) WHERE status = 'pending';

CREATE TABLE model_pricing (
  id BIGINT PRIMARY KEY, model TEXT NOT NULL UNIQUE, provider TEXT NOT NULL DEFAULT 'unknown', input_per_1k DOUBLE PRECISION NOT NULL, output_per_1k DOUBLE PRECISION NOT NULL,
  cached_input_per_1k DOUBLE PRECISION, cache_write_per_1k DOUBLE PRECISION, alias_of TEXT, mode TEXT, deprecation_date TEXT, max_tokens BIGINT, max_input_tokens BIGINT,
  supports_vision INTEGER NOT NULL DEFAULT 0, supports_tools INTEGER NOT NULL DEFAULT 0, source TEXT NOT NULL DEFAULT 'defaults', is_active INTEGER NOT NULL DEFAULT 1, notes TEXT, updated_at_us BIGINT NOT NULL);
CREATE INDEX ix_pricing_provider ON model_pricing(provider);

CREATE TABLE subscriptions (
  org_id TEXT PRIMARY KEY REFERENCES organizations(id), tier TEXT NOT NULL, status TEXT NOT NULL, stripe_customer_id TEXT, stripe_subscription_id TEXT UNIQUE,
  period_start_us BIGINT, period_end_us BIGINT, auto_renew INTEGER NOT NULL DEFAULT 1, trial_start_us BIGINT, trial_end_us BIGINT, paused_at_us BIGINT, cancelled_at_us BIGINT, updated_at_us BIGINT NOT NULL);
CREATE TABLE checkout_sessions (
  id TEXT PRIMARY KEY, org_id TEXT NOT NULL REFERENCES organizations(id), tier TEXT NOT NULL, status TEXT NOT NULL, created_at_us BIGINT NOT NULL);
CREATE TABLE payments (
  id TEXT PRIMARY KEY, org_id TEXT NOT NULL REFERENCES organizations(id), external_id TEXT UNIQUE, amount_cents BIGINT NOT NULL, currency TEXT NOT NULL DEFAULT 'usd', status TEXT NOT NULL,
  tier TEXT, description TEXT, invoice_url TEXT, created_at_us BIGINT NOT NULL);
CREATE INDEX ix_payments_org ON payments(org_id, created_at_us);
CREATE TABLE stripe_events (id TEXT PRIMARY KEY, received_at_us BIGINT NOT NULL);

CREATE TABLE feedback (
  id TEXT PRIMARY KEY, user_id TEXT, user_email TEXT, user_name TEXT, type TEXT NOT NULL, title TEXT NOT NULL, description TEXT NOT NULL, search_text TEXT NOT NULL, model_name TEXT, model_provider TEXT,
  metadata TEXT, attachments TEXT, environment TEXT, client_metadata TEXT, is_confidential INTEGER NOT NULL DEFAULT 0, status TEXT NOT NULL DEFAULT 'open', priority TEXT NOT NULL DEFAULT 'medium',
  upvotes BIGINT NOT NULL DEFAULT 0, comment_count BIGINT NOT NULL DEFAULT 0, admin_response TEXT, admin_responded_at_us BIGINT, created_at_us BIGINT NOT NULL, updated_at_us BIGINT NOT NULL);
CREATE INDEX ix_feedback_created ON feedback(is_confidential, created_at_us);
CREATE INDEX ix_feedback_popular ON feedback(is_confidential, upvotes);
CREATE TABLE feedback_upvotes (
  feedback_id TEXT NOT NULL REFERENCES feedback(id) ON DELETE CASCADE, user_id TEXT NOT NULL, created_at_us BIGINT NOT NULL, PRIMARY KEY (feedback_id, user_id));
CREATE TABLE feedback_comments (
  id TEXT PRIMARY KEY, feedback_id TEXT NOT NULL REFERENCES feedback(id) ON DELETE CASCADE, user_id TEXT, user_name TEXT, comment TEXT NOT NULL, is_admin INTEGER NOT NULL DEFAULT 0,
  is_internal INTEGER NOT NULL DEFAULT 0, created_at_us BIGINT NOT NULL);
CREATE INDEX ix_feedback_comments ON feedback_comments(feedback_id, created_at_us);
CREATE TABLE feedback_events (
  id TEXT PRIMARY KEY, feedback_id TEXT NOT NULL REFERENCES feedback(id) ON DELETE CASCADE, event_type TEXT NOT NULL, old_value TEXT, new_value TEXT, actor_id TEXT, created_at_us BIGINT NOT NULL);

CREATE TABLE attachments (
  id TEXT PRIMARY KEY, stored_name TEXT NOT NULL UNIQUE, original_name TEXT NOT NULL, mime TEXT NOT NULL, size_bytes BIGINT NOT NULL, storage TEXT NOT NULL DEFAULT 'local', user_id TEXT NOT NULL, created_at_us BIGINT NOT NULL);

CREATE TABLE audit_log (
  id TEXT PRIMARY KEY, admin_id TEXT, action_type TEXT NOT NULL, target_type TEXT, target_id TEXT, details TEXT, ip_address TEXT, user_agent TEXT, created_at_us BIGINT NOT NULL);
CREATE INDEX ix_audit_created ON audit_log(created_at_us);
CREATE INDEX ix_audit_action ON audit_log(action_type, created_at_us);
CREATE INDEX ix_audit_admin ON audit_log(admin_id, created_at_us);
