-- When Stripe made the newest of its events that this subscription follows: they arrive in any order.
ALTER TABLE subscriptions ADD COLUMN stripe_event_us BIGINT;
