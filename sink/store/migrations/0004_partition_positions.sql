-- How far the events of each partition of a topic are stored, and whose it is: a consumer that claims a partition
-- counts `generation` up, and whoever had it before stores no more.
CREATE TABLE partition_positions (
  topic TEXT NOT NULL, partition INTEGER NOT NULL, generation BIGINT NOT NULL, next_offset BIGINT NOT NULL,
  updated_at_us BIGINT NOT NULL, PRIMARY KEY (topic, partition));
