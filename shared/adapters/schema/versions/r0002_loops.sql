-- What the learning loop and the watching loop keep.

CREATE TABLE tollgate.promotions (
    promotion_id bigint GENERATED ALWAYS AS IDENTITY,
    role text NOT NULL,
    number bigint NOT NULL,
    bundle_digest text COLLATE "C",
    action text NOT NULL,
    author text NOT NULL,
    reason text NOT NULL,
    verdict_digest text COLLATE "C",
    changed_at_us bigint NOT NULL,
    CONSTRAINT pk_promotions PRIMARY KEY (promotion_id),
    CONSTRAINT uq_promotions_role_number UNIQUE (role, number),
    CONSTRAINT ck_promotions_role CHECK (role IN ('champion', 'challenger', 'shadow')),
    CONSTRAINT ck_promotions_number CHECK (number > 0),
    CONSTRAINT ck_promotions_digests CHECK (length(bundle_digest) = 64 AND length(verdict_digest) = 64)
);
COMMENT ON TABLE tollgate.promotions IS 'Every change of a role, append-only: who, when, why; pointers in Blob follow';
COMMENT ON COLUMN tollgate.promotions.role IS 'champion, challenger, shadow';
COMMENT ON COLUMN tollgate.promotions.number IS 'number of the pointer''s state, from 1 without gaps';
COMMENT ON COLUMN tollgate.promotions.bundle_digest IS 'who plays the part from then on; null for nobody';
COMMENT ON COLUMN tollgate.promotions.action IS 'promote, accept, rollback, challenge, shadow, retire, adopt';
COMMENT ON COLUMN tollgate.promotions.verdict_digest IS 'the verdict that led to it';
COMMENT ON COLUMN tollgate.promotions.changed_at_us IS 'when, by our clock, microseconds since 1970 UTC';

CREATE TABLE tollgate.promotion_verdicts (
    verdict_digest text COLLATE "C" NOT NULL,
    challenger_digest text COLLATE "C" NOT NULL,
    champion_digest text COLLATE "C",
    passed boolean NOT NULL,
    document text NOT NULL,
    run_id text COLLATE "C",
    decided_at_us bigint NOT NULL,
    CONSTRAINT pk_promotion_verdicts PRIMARY KEY (verdict_digest),
    CONSTRAINT ck_promotion_verdicts_digests CHECK (length(verdict_digest) = 64)
);
COMMENT ON TABLE tollgate.promotion_verdicts IS 'What the gate said of challengers';
COMMENT ON COLUMN tollgate.promotion_verdicts.verdict_digest IS 'SHA-256 of the document, 64 hexadecimal digits';
COMMENT ON COLUMN tollgate.promotion_verdicts.document IS 'canonical JSON';
COMMENT ON COLUMN tollgate.promotion_verdicts.run_id IS 'the pipeline run that asked';
COMMENT ON COLUMN tollgate.promotion_verdicts.decided_at_us IS 'when, by our clock, microseconds since 1970 UTC';

CREATE TABLE tollgate.leases (
    name text COLLATE "C" NOT NULL,
    holder text NOT NULL,
    acquired_at_us bigint NOT NULL,
    expires_at_us bigint NOT NULL,
    CONSTRAINT pk_leases PRIMARY KEY (name),
    CONSTRAINT ck_leases_span CHECK (acquired_at_us < expires_at_us)
);
COMMENT ON TABLE tollgate.leases IS 'Who alone may do something, until when; one that has expired may be taken over';
COMMENT ON COLUMN tollgate.leases.acquired_at_us IS 'when, by our clock, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.leases.expires_at_us IS 'until when unless renewed, microseconds since 1970 UTC';

CREATE TABLE tollgate.shadow_scores (
    bundle_digest text COLLATE "C" NOT NULL,
    event_time_us bigint NOT NULL,
    transaction_id text COLLATE "C" NOT NULL,
    raw real NOT NULL,
    score double precision NOT NULL,
    recorded_at_us bigint NOT NULL,
    CONSTRAINT pk_shadow_scores PRIMARY KEY (bundle_digest, event_time_us, transaction_id),
    CONSTRAINT ck_shadow_scores_score CHECK (score >= 0 AND score <= 1)
);
COMMENT ON TABLE tollgate.shadow_scores IS 'What models said that do not decide, from stored vectors';
COMMENT ON COLUMN tollgate.shadow_scores.event_time_us IS 'of the transaction, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.shadow_scores.raw IS 'the model''s output before calibration';
COMMENT ON COLUMN tollgate.shadow_scores.recorded_at_us IS 'when it was scored, by our clock, microseconds since 1970 UTC';

CREATE TABLE tollgate.registry_outbox (
    entry_id bigint GENERATED ALWAYS AS IDENTITY,
    run_id text COLLATE "C" NOT NULL,
    record jsonb NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    error text,
    created_at_us bigint NOT NULL,
    next_at_us bigint NOT NULL,
    CONSTRAINT pk_registry_outbox PRIMARY KEY (entry_id),
    CONSTRAINT uq_registry_outbox_run_id UNIQUE (run_id),
    CONSTRAINT ck_registry_outbox_attempts CHECK (attempts >= 0)
);
COMMENT ON TABLE tollgate.registry_outbox IS 'Records of runs that the model registry does not have yet';
COMMENT ON COLUMN tollgate.registry_outbox.record IS 'what the registry is to be told; files are named by their blob';
COMMENT ON COLUMN tollgate.registry_outbox.error IS 'why the last attempt failed';
COMMENT ON COLUMN tollgate.registry_outbox.created_at_us IS 'when, by our clock, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.registry_outbox.next_at_us IS 'not to be tried before, microseconds since 1970 UTC';

CREATE TABLE tollgate.notifications (
    notification_id bigint GENERATED ALWAYS AS IDENTITY,
    channel text NOT NULL,
    dedup_key text COLLATE "C" NOT NULL,
    severity smallint NOT NULL,
    title text NOT NULL,
    evidence jsonb DEFAULT '{}'::jsonb NOT NULL,
    link text DEFAULT '' NOT NULL,
    status text DEFAULT 'waiting' NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    error text,
    created_at_us bigint NOT NULL,
    next_at_us bigint NOT NULL,
    ended_at_us bigint,
    CONSTRAINT pk_notifications PRIMARY KEY (notification_id),
    CONSTRAINT uq_notifications_channel_dedup_key UNIQUE (channel, dedup_key),
    CONSTRAINT ck_notifications_severity CHECK (severity BETWEEN 0 AND 3),
    CONSTRAINT ck_notifications_status CHECK (status IN ('waiting', 'sent', 'withheld', 'failed')),
    CONSTRAINT ck_notifications_ended CHECK ((ended_at_us IS NULL) = (status = 'waiting'))
);
CREATE INDEX ix_notifications_next_at_us ON tollgate.notifications (next_at_us) WHERE status = 'waiting';
CREATE INDEX ix_notifications_ended_at_us ON tollgate.notifications (ended_at_us) INCLUDE (channel, status);
COMMENT ON TABLE tollgate.notifications IS 'What people are told, once for each channel and key';
COMMENT ON COLUMN tollgate.notifications.channel IS 'page, mail, slack, webhook';
COMMENT ON COLUMN tollgate.notifications.dedup_key IS 'the same key is told once';
COMMENT ON COLUMN tollgate.notifications.severity IS '0 critical, 1 error, 2 warning, 3 information';
COMMENT ON COLUMN tollgate.notifications.evidence IS 'the numbers that led to it, without identifiers';
COMMENT ON COLUMN tollgate.notifications.status IS 'waiting, sent, withheld by the rate limit, failed for good';
COMMENT ON COLUMN tollgate.notifications.created_at_us IS 'when, by our clock, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.notifications.next_at_us IS 'not to be tried before, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.notifications.ended_at_us IS
    'when it was sent or given up, by our clock, microseconds since 1970 UTC';

CREATE TABLE tollgate.announced_changes (
    change_id bigint GENERATED ALWAYS AS IDENTITY,
    subject text NOT NULL,
    start_us bigint NOT NULL,
    end_us bigint NOT NULL,
    author text NOT NULL,
    reason text NOT NULL,
    recorded_at_us bigint NOT NULL,
    CONSTRAINT pk_announced_changes PRIMARY KEY (change_id),
    CONSTRAINT ck_announced_changes_span CHECK (start_us < end_us)
);
COMMENT ON TABLE tollgate.announced_changes IS 'Changes that people said would come: drift in them is no alarm';
COMMENT ON COLUMN tollgate.announced_changes.subject IS 'a feature, score, outcome, volume, or * for all';
COMMENT ON COLUMN tollgate.announced_changes.start_us IS 'from this event time on, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.announced_changes.end_us IS 'until this event time, not included, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.announced_changes.recorded_at_us IS 'when, by our clock, microseconds since 1970 UTC';

CREATE TABLE tollgate.app_meters (
    app text COLLATE "C" NOT NULL,
    writer text COLLATE "C" NOT NULL,
    layout text COLLATE "C" NOT NULL,
    cells double precision[] NOT NULL,
    started_at_us bigint NOT NULL,
    updated_at_us bigint NOT NULL,
    CONSTRAINT pk_app_meters PRIMARY KEY (app, writer, layout)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);
COMMENT ON TABLE tollgate.app_meters IS 'Counts of every instance of an app, ever: the sum over writers only grows';
COMMENT ON COLUMN tollgate.app_meters.writer IS 'one instance since its start, or the sum of those that are gone';
COMMENT ON COLUMN tollgate.app_meters.layout IS 'digest of what the cells mean';
COMMENT ON COLUMN tollgate.app_meters.cells IS 'counters and buckets by their place in the layout';
COMMENT ON COLUMN tollgate.app_meters.started_at_us IS 'when the writer started, by our clock, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.app_meters.updated_at_us IS 'when it wrote last, by our clock, microseconds since 1970 UTC';

CREATE TABLE tollgate.feature_views (
    name text COLLATE "C" NOT NULL,
    definition text COLLATE "C" NOT NULL,
    status text NOT NULL,
    customer_horizon_us bigint NOT NULL,
    terminal_horizon_us bigint NOT NULL,
    entity smallint,
    entity_key text COLLATE "C",
    entities bigint DEFAULT 0 NOT NULL,
    transactions bigint DEFAULT 0 NOT NULL,
    declared_at_us bigint NOT NULL,
    updated_at_us bigint NOT NULL,
    completed_at_us bigint,
    CONSTRAINT pk_feature_views PRIMARY KEY (name),
    CONSTRAINT ck_feature_views_definition CHECK (length(definition) = 64),
    CONSTRAINT ck_feature_views_status CHECK (status IN ('declared', 'filling', 'complete')),
    CONSTRAINT ck_feature_views_horizons CHECK (customer_horizon_us >= 0 AND terminal_horizon_us >= 0),
    CONSTRAINT ck_feature_views_place CHECK ((entity IS NULL) = (entity_key IS NULL) AND entity BETWEEN 0 AND 1),
    CONSTRAINT ck_feature_views_counts CHECK (entities >= 0 AND transactions >= 0),
    CONSTRAINT ck_feature_views_completed CHECK ((completed_at_us IS NOT NULL) = (status = 'complete'))
);
COMMENT ON TABLE tollgate.feature_views IS 'Feature views that were asked for, and whether entity state reaches back for them';
COMMENT ON COLUMN tollgate.feature_views.definition IS 'SHA-256 of the definition, 64 hexadecimal digits';
COMMENT ON COLUMN tollgate.feature_views.status IS 'declared, filling, complete';
COMMENT ON COLUMN tollgate.feature_views.customer_horizon_us IS
    'how far behind its greatest event time a customer''s state is kept, microseconds';
COMMENT ON COLUMN tollgate.feature_views.terminal_horizon_us IS
    'how far behind its greatest event time a terminal''s state is kept, microseconds';
COMMENT ON COLUMN tollgate.feature_views.entity IS '0 customer, 1 terminal: what is being filled; null before the first';
COMMENT ON COLUMN tollgate.feature_views.entity_key IS 'the last entity that is done';
COMMENT ON COLUMN tollgate.feature_views.entities IS 'entities looked at so far';
COMMENT ON COLUMN tollgate.feature_views.transactions IS 'transactions put into their states so far';
COMMENT ON COLUMN tollgate.feature_views.declared_at_us IS 'when, by our clock, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.feature_views.updated_at_us IS 'when, by our clock, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.feature_views.completed_at_us IS 'when, by our clock, microseconds since 1970 UTC';

CREATE TABLE tollgate.performance_metrics (
    metric_id bigint GENERATED ALWAYS AS IDENTITY,
    bundle_digest text COLLATE "C" NOT NULL,
    segment text COLLATE "C" NOT NULL,
    metric text COLLATE "C" NOT NULL,
    value double precision,
    low double precision,
    high double precision,
    note text DEFAULT '' NOT NULL,
    n_rows bigint NOT NULL,
    n_frauds bigint NOT NULL,
    window_start_us bigint NOT NULL,
    window_end_us bigint NOT NULL,
    recorded_at_us bigint NOT NULL,
    CONSTRAINT pk_performance_metrics PRIMARY KEY (metric_id),
    CONSTRAINT uq_performance_metrics_bundle_digest_segment_metric_win_6de8
        UNIQUE (bundle_digest, segment, metric, window_start_us, window_end_us),
    CONSTRAINT ck_performance_metrics_window CHECK (window_start_us < window_end_us),
    CONSTRAINT ck_performance_metrics_rows CHECK (n_rows >= 0 AND n_frauds >= 0 AND n_frauds <= n_rows)
);
COMMENT ON TABLE tollgate.performance_metrics IS 'What decisions were worth, by model and segment, on mature labels';
COMMENT ON COLUMN tollgate.performance_metrics.bundle_digest IS 'the model that decided, or scored in shadow';
COMMENT ON COLUMN tollgate.performance_metrics.segment IS 'all, or a segment such as amount:high';
COMMENT ON COLUMN tollgate.performance_metrics.value IS 'null where there were too few to tell';
COMMENT ON COLUMN tollgate.performance_metrics.low IS 'lower end of the interval';
COMMENT ON COLUMN tollgate.performance_metrics.high IS 'upper end of the interval';
COMMENT ON COLUMN tollgate.performance_metrics.note IS 'why there is no value';
COMMENT ON COLUMN tollgate.performance_metrics.window_start_us IS 'first event time, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.performance_metrics.window_end_us IS 'their end, not included, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.performance_metrics.recorded_at_us IS
    'when it was computed, by our clock, microseconds since 1970 UTC';

CREATE INDEX ix_performance_metrics_recorded_at_us ON tollgate.performance_metrics (recorded_at_us);

CREATE TABLE tollgate.tallies (
    subject text NOT NULL,
    labels text[] NOT NULL,
    count bigint NOT NULL,
    until_id bigint DEFAULT 0 NOT NULL,
    CONSTRAINT pk_tallies PRIMARY KEY (subject, labels),
    CONSTRAINT ck_tallies_count CHECK (count >= 0)
);
COMMENT ON TABLE tollgate.tallies IS 'What was counted of rows that are read no more: counters never fall';
COMMENT ON COLUMN tollgate.tallies.subject IS 'dead letters, runs, replays';
COMMENT ON COLUMN tollgate.tallies.labels IS 'what is told apart: hub and field; pipeline and status; verdict';
COMMENT ON COLUMN tollgate.tallies.count IS 'rows that need not be counted again, because they are gone or final';
COMMENT ON COLUMN tollgate.tallies.until_id IS 'of dead letters: rows up to the highest of these numbers are counted';

-- One open trigger for each cause and subject. The table is small: the lock is held for a moment.
SET LOCAL lock_timeout = '2s';
ALTER TABLE tollgate.retraining_triggers ADD COLUMN subject text DEFAULT '' NOT NULL;
COMMENT ON COLUMN tollgate.retraining_triggers.subject IS 'a feature, score, outcome; empty where the cause says all';
CREATE UNIQUE INDEX uq_retraining_triggers_open ON tollgate.retraining_triggers (cause, subject)
    WHERE status IN ('open', 'claimed');

-- The last runs of a pipeline, which the poll for triggers asks for several times a minute.
CREATE INDEX ix_pipeline_execution_log_pipeline_started_at_us
    ON tollgate.pipeline_execution_log (pipeline, started_at_us) INCLUDE (status);

-- What has expired, the oldest first; of dead letters also those that wait.
CREATE INDEX ix_pipeline_execution_log_started_at_us ON tollgate.pipeline_execution_log (started_at_us);
CREATE INDEX ix_drift_metrics_recorded_at_us ON tollgate.drift_metrics (recorded_at_us);
CREATE INDEX ix_data_quality_log_recorded_at_us ON tollgate.data_quality_log (recorded_at_us);
CREATE INDEX ix_dead_letters_received_at_us ON tollgate.dead_letters (received_at_us) WHERE replayed_at_us IS NULL;
CREATE INDEX ix_dead_letters_replayed_at_us ON tollgate.dead_letters (replayed_at_us)
    WHERE replayed_at_us IS NOT NULL;

-- What was recorded when, for timers that look at one hour. Of the partitioned tables ONLY the parent: partitions that
-- are made from now on get theirs, those that are there are not read while deciding waits.
CREATE INDEX ix_feedback_labels_recorded_at_us ON tollgate.feedback_labels USING brin (recorded_at_us);
CREATE INDEX ix_transactions_recorded_at_us ON ONLY tollgate.transactions USING brin (recorded_at_us);
CREATE INDEX ix_predictions_recorded_at_us ON ONLY tollgate.predictions USING brin (recorded_at_us);
