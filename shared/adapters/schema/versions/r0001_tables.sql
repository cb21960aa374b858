-- Everything there is at revision 0001. Times are microseconds since 1970 UTC.

CREATE TABLE tollgate.transaction_ids (
    transaction_id text COLLATE "C" NOT NULL,
    digest bytea,
    event_time_us bigint,
    customer_id text COLLATE "C",
    terminal_id text COLLATE "C",
    labelled boolean DEFAULT false NOT NULL,
    CONSTRAINT pk_transaction_ids PRIMARY KEY (transaction_id),
    CONSTRAINT ck_transaction_ids_digest CHECK (octet_length(digest) = 32),
    CONSTRAINT ck_transaction_ids_placeholder
        CHECK (digest IS NOT NULL OR (event_time_us IS NULL AND customer_id IS NULL AND terminal_id IS NULL))
) PARTITION BY HASH (transaction_id);
CREATE TABLE tollgate.transaction_ids_h0 PARTITION OF tollgate.transaction_ids FOR VALUES WITH (MODULUS 8, REMAINDER 0)
    WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
CREATE TABLE tollgate.transaction_ids_h1 PARTITION OF tollgate.transaction_ids FOR VALUES WITH (MODULUS 8, REMAINDER 1)
    WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
CREATE TABLE tollgate.transaction_ids_h2 PARTITION OF tollgate.transaction_ids FOR VALUES WITH (MODULUS 8, REMAINDER 2)
    WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
CREATE TABLE tollgate.transaction_ids_h3 PARTITION OF tollgate.transaction_ids FOR VALUES WITH (MODULUS 8, REMAINDER 3)
    WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
CREATE TABLE tollgate.transaction_ids_h4 PARTITION OF tollgate.transaction_ids FOR VALUES WITH (MODULUS 8, REMAINDER 4)
    WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
CREATE TABLE tollgate.transaction_ids_h5 PARTITION OF tollgate.transaction_ids FOR VALUES WITH (MODULUS 8, REMAINDER 5)
    WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
CREATE TABLE tollgate.transaction_ids_h6 PARTITION OF tollgate.transaction_ids FOR VALUES WITH (MODULUS 8, REMAINDER 6)
    WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
CREATE TABLE tollgate.transaction_ids_h7 PARTITION OF tollgate.transaction_ids FOR VALUES WITH (MODULUS 8, REMAINDER 7)
    WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
COMMENT ON TABLE tollgate.transaction_ids IS
    'Ids that were claimed: what makes effects happen once, whatever the event time';
COMMENT ON COLUMN tollgate.transaction_ids.digest IS
    'SHA-256 of the canonical body; null while only a label named the id; zero once forgotten';
COMMENT ON COLUMN tollgate.transaction_ids.event_time_us IS
    'when the transaction happened, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.transaction_ids.labelled IS 'whether labels wait for this id';

CREATE TABLE tollgate.transactions (
    customer_id text COLLATE "C" NOT NULL,
    event_time_us bigint NOT NULL,
    transaction_id text COLLATE "C" NOT NULL,
    terminal_id text COLLATE "C" NOT NULL,
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    customer_version bigint NOT NULL,
    terminal_version bigint NOT NULL,
    recorded_at_us bigint NOT NULL,
    flags smallint NOT NULL,
    CONSTRAINT pk_transactions PRIMARY KEY (customer_id, event_time_us, transaction_id),
    CONSTRAINT ck_transactions_amount CHECK (amount_minor > 0),
    CONSTRAINT ck_transactions_currency CHECK (length(currency) = 3),
    CONSTRAINT ck_transactions_versions CHECK (customer_version >= 0 AND terminal_version >= 0),
    CONSTRAINT ck_transactions_flags CHECK (flags BETWEEN 0 AND 3)
) PARTITION BY RANGE (event_time_us);
COMMENT ON TABLE tollgate.transactions IS 'Raw transactions, from which every feature can be computed again';
COMMENT ON COLUMN tollgate.transactions.event_time_us IS 'when it happened, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.transactions.amount_minor IS 'in minor units of the currency';
COMMENT ON COLUMN tollgate.transactions.currency IS 'ISO 4217';
COMMENT ON COLUMN tollgate.transactions.customer_version IS 'version of the customer''s state that it created';
COMMENT ON COLUMN tollgate.transactions.terminal_version IS 'version of the terminal''s state that it created';
COMMENT ON COLUMN tollgate.transactions.recorded_at_us IS
    'when it was committed, by our clock, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.transactions.flags IS
    'bit 0: too late for the customer''s state, bit 1: for the terminal''s';

CREATE TABLE tollgate.predictions (
    transaction_id text COLLATE "C" NOT NULL,
    event_time_us bigint NOT NULL,
    record bytea NOT NULL,
    outcome smallint NOT NULL,
    score double precision NOT NULL,
    bundle_digest text NOT NULL,
    log_writer text COLLATE "C" NOT NULL,
    log_sequence bigint NOT NULL,
    log_leaf integer NOT NULL,
    recorded_at_us bigint NOT NULL,
    CONSTRAINT pk_predictions PRIMARY KEY (transaction_id, event_time_us),
    CONSTRAINT ck_predictions_outcome CHECK (outcome BETWEEN 0 AND 2),
    CONSTRAINT ck_predictions_score CHECK (score >= 0 AND score <= 1),
    CONSTRAINT ck_predictions_bundle_digest CHECK (length(bundle_digest) = 64),
    CONSTRAINT ck_predictions_place CHECK (log_sequence >= 0 AND log_leaf >= 0)
) PARTITION BY RANGE (event_time_us);
COMMENT ON TABLE tollgate.predictions IS 'Decisions, one per transaction that was decided';
COMMENT ON COLUMN tollgate.predictions.event_time_us IS 'when the transaction happened, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.predictions.record IS 'canonical bytes of the decision, the authority';
COMMENT ON COLUMN tollgate.predictions.outcome IS '0 approve, 1 review, 2 decline';
COMMENT ON COLUMN tollgate.predictions.score IS 'calibrated probability';
COMMENT ON COLUMN tollgate.predictions.bundle_digest IS 'the model bundle that decided, 64 hexadecimal digits';
COMMENT ON COLUMN tollgate.predictions.log_sequence IS 'the block of that writer';
COMMENT ON COLUMN tollgate.predictions.log_leaf IS 'the leaf of that block, from 0';
COMMENT ON COLUMN tollgate.predictions.recorded_at_us IS
    'when it was committed, by our clock, microseconds since 1970 UTC';

CREATE TABLE tollgate.customer_features (
    customer_id text COLLATE "C" NOT NULL,
    version bigint DEFAULT 0 NOT NULL,
    header bytea,
    salt bytea NOT NULL,
    surrogate text,
    CONSTRAINT pk_customer_features PRIMARY KEY (customer_id),
    CONSTRAINT ck_customer_features_version CHECK (version >= 0)
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);
COMMENT ON TABLE tollgate.customer_features IS 'The row of a customer that is locked while deciding';
COMMENT ON COLUMN tollgate.customer_features.version IS 'events and labels folded so far';
COMMENT ON COLUMN tollgate.customer_features.header IS 'header of the entity state; null until something was folded';
COMMENT ON COLUMN tollgate.customer_features.salt IS
    'secret: with it the surrogate can be recomputed, so forgetting deletes it';
COMMENT ON COLUMN tollgate.customer_features.surrogate IS
    'how the log names the customer; null until something was folded';

CREATE TABLE tollgate.merchant_features (
    terminal_id text COLLATE "C" NOT NULL,
    version bigint DEFAULT 0 NOT NULL,
    header bytea,
    surrogate text,
    CONSTRAINT pk_merchant_features PRIMARY KEY (terminal_id),
    CONSTRAINT ck_merchant_features_version CHECK (version >= 0)
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);
COMMENT ON TABLE tollgate.merchant_features IS 'The row of a terminal that is locked while deciding';
COMMENT ON COLUMN tollgate.merchant_features.version IS 'events and labels folded so far';
COMMENT ON COLUMN tollgate.merchant_features.header IS 'header of the entity state; null until something was folded';
COMMENT ON COLUMN tollgate.merchant_features.surrogate IS
    'how the log names the terminal; null until something was folded';

CREATE TABLE tollgate.entity_tiles (
    entity smallint NOT NULL,
    entity_key text COLLATE "C" NOT NULL,
    start_us bigint NOT NULL,
    version bigint NOT NULL,
    data bytea NOT NULL,
    CONSTRAINT pk_entity_tiles PRIMARY KEY (entity, entity_key, start_us),
    CONSTRAINT ck_entity_tiles_entity CHECK (entity BETWEEN 0 AND 1),
    CONSTRAINT ck_entity_tiles_version CHECK (version >= 0)
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0,
    toast_tuple_target = 8160
);
-- Not compressed: tiles are packed already. Inline up to a whole page, so that a tile is one read.
ALTER TABLE tollgate.entity_tiles ALTER COLUMN data SET STORAGE EXTERNAL;
COMMENT ON TABLE tollgate.entity_tiles IS 'State of customers and terminals in ranges of event time';
COMMENT ON COLUMN tollgate.entity_tiles.entity IS '0 customer, 1 terminal';
COMMENT ON COLUMN tollgate.entity_tiles.start_us IS
    'start of the tile''s range of event time, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.entity_tiles.version IS 'version of the entity that wrote the tile last';
COMMENT ON COLUMN tollgate.entity_tiles.data IS 'the tile';

CREATE TABLE tollgate.feedback_labels (
    transaction_id text COLLATE "C" NOT NULL,
    label_digest bytea NOT NULL,
    verdict smallint NOT NULL,
    source smallint NOT NULL,
    event_time_us bigint NOT NULL,
    known_at_us bigint NOT NULL,
    confidence smallint NOT NULL,
    author text NOT NULL,
    recorded_at_us bigint NOT NULL,
    customer_version bigint,
    terminal_version bigint,
    CONSTRAINT pk_feedback_labels PRIMARY KEY (transaction_id, label_digest),
    CONSTRAINT ck_feedback_labels_label_digest CHECK (octet_length(label_digest) = 32),
    CONSTRAINT ck_feedback_labels_codes CHECK (verdict >= 0 AND source >= 0),
    CONSTRAINT ck_feedback_labels_confidence CHECK (confidence BETWEEN 0 AND 100),
    CONSTRAINT ck_feedback_labels_versions
        CHECK ((customer_version IS NULL) = (terminal_version IS NULL)
            AND coalesce(customer_version, 0) >= 0 AND coalesce(terminal_version, 0) >= 0)
) WITH (
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02
);
COMMENT ON TABLE tollgate.feedback_labels IS 'What became known of transactions, each label once';
COMMENT ON COLUMN tollgate.feedback_labels.label_digest IS 'SHA-256 of the label''s canonical bytes';
COMMENT ON COLUMN tollgate.feedback_labels.verdict IS 'place in shared.domain.labels.Verdict';
COMMENT ON COLUMN tollgate.feedback_labels.source IS 'place in shared.domain.labels.PRECEDENCE';
COMMENT ON COLUMN tollgate.feedback_labels.event_time_us IS
    'when what the label reports happened, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.feedback_labels.known_at_us IS
    'when it became known to its source, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.feedback_labels.confidence IS 'percent';
COMMENT ON COLUMN tollgate.feedback_labels.recorded_at_us IS
    'when it was committed, by our clock, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.feedback_labels.customer_version IS
    'version of the customer that it created; null: waits for its transaction';
COMMENT ON COLUMN tollgate.feedback_labels.terminal_version IS
    'version of the terminal that it created; null: waits for its transaction';

CREATE TABLE tollgate.log_blocks (
    writer text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    previous bytea NOT NULL,
    root bytea NOT NULL,
    count integer NOT NULL,
    leaves bytea NOT NULL,
    hash bytea NOT NULL,
    recorded_at_us bigint NOT NULL,
    CONSTRAINT pk_log_blocks PRIMARY KEY (writer, sequence),
    CONSTRAINT ck_log_blocks_sequence CHECK (sequence >= 0),
    CONSTRAINT ck_log_blocks_previous CHECK (octet_length(previous) = 32),
    CONSTRAINT ck_log_blocks_root CHECK (octet_length(root) = 32),
    CONSTRAINT ck_log_blocks_hash CHECK (octet_length(hash) = 32),
    CONSTRAINT ck_log_blocks_leaves CHECK (count > 0 AND octet_length(leaves) = 32 * count)
) WITH (
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02
);
CREATE INDEX ix_log_blocks_recorded_at_us ON tollgate.log_blocks USING brin (recorded_at_us);
COMMENT ON TABLE tollgate.log_blocks IS
    'The decision log: one block per commit, a chain per writer; nobody may change or delete a row';
COMMENT ON COLUMN tollgate.log_blocks.sequence IS 'place in the writer''s chain';
COMMENT ON COLUMN tollgate.log_blocks.previous IS 'hash of the writer''s block before';
COMMENT ON COLUMN tollgate.log_blocks.root IS 'Merkle root over the leaves';
COMMENT ON COLUMN tollgate.log_blocks.count IS 'number of leaves';
COMMENT ON COLUMN tollgate.log_blocks.leaves IS 'the leaves'' hashes, one after the other';
COMMENT ON COLUMN tollgate.log_blocks.hash IS 'hash of this block';
COMMENT ON COLUMN tollgate.log_blocks.recorded_at_us IS
    'when it was committed, by our clock, microseconds since 1970 UTC';

CREATE TABLE tollgate.log_seals (
    seal_id bigint GENERATED BY DEFAULT AS IDENTITY,
    sealed_at_us bigint NOT NULL,
    previous bytea NOT NULL,
    hash bytea NOT NULL,
    heads bytea NOT NULL,
    CONSTRAINT pk_log_seals PRIMARY KEY (seal_id),
    CONSTRAINT ck_log_seals_previous CHECK (octet_length(previous) = 32),
    CONSTRAINT ck_log_seals_hash CHECK (octet_length(hash) = 32)
);
COMMENT ON TABLE tollgate.log_seals IS 'Mirror of the seals in Blob, which are the authority';
COMMENT ON COLUMN tollgate.log_seals.seal_id IS 'number of the seal''s blob';
COMMENT ON COLUMN tollgate.log_seals.sealed_at_us IS 'when it was made, by our clock, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.log_seals.previous IS 'hash of the seal before';
COMMENT ON COLUMN tollgate.log_seals.hash IS 'hash of this seal';
COMMENT ON COLUMN tollgate.log_seals.heads IS 'canonical bytes of the writers'' heads';

CREATE TABLE tollgate.outbox (
    outbox_id bigint GENERATED ALWAYS AS IDENTITY,
    transaction_id text COLLATE "C" NOT NULL,
    event_time_us bigint NOT NULL,
    recorded_at_us bigint NOT NULL,
    CONSTRAINT pk_outbox PRIMARY KEY (outbox_id)
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);
COMMENT ON TABLE tollgate.outbox IS 'Decisions that have not left yet';
COMMENT ON COLUMN tollgate.outbox.event_time_us IS 'when the transaction happened, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.outbox.recorded_at_us IS
    'when the decision was committed, by our clock, microseconds since 1970 UTC';

CREATE TABLE tollgate.dead_letters (
    dead_letter_id bigint GENERATED ALWAYS AS IDENTITY,
    source text NOT NULL,
    partition_id text NOT NULL,
    event_offset text NOT NULL,
    reason text NOT NULL,
    field text,
    rule text,
    body bytea NOT NULL,
    received_at_us bigint NOT NULL,
    replayed_at_us bigint,
    CONSTRAINT pk_dead_letters PRIMARY KEY (dead_letter_id),
    CONSTRAINT uq_dead_letters_source_partition_id_event_offset UNIQUE (source, partition_id, event_offset)
);
COMMENT ON TABLE tollgate.dead_letters IS
    'Input that no retry can make usable; the authority, of which Blob holds copies';
COMMENT ON COLUMN tollgate.dead_letters.source IS 'the hub, or another way in';
COMMENT ON COLUMN tollgate.dead_letters.body IS 'as it came';
COMMENT ON COLUMN tollgate.dead_letters.received_at_us IS
    'when it was set aside, by our clock, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.dead_letters.replayed_at_us IS 'when it was handed in again, microseconds since 1970 UTC';

CREATE TABLE tollgate.forgotten (
    surrogate text COLLATE "C" NOT NULL,
    forgotten_at_us bigint NOT NULL,
    reason text NOT NULL,
    CONSTRAINT pk_forgotten PRIMARY KEY (surrogate)
);
COMMENT ON TABLE tollgate.forgotten IS 'Customers who were forgotten';
COMMENT ON COLUMN tollgate.forgotten.surrogate IS
    'how the log named the customer; the identifier itself is kept nowhere';
COMMENT ON COLUMN tollgate.forgotten.forgotten_at_us IS 'when, by our clock, microseconds since 1970 UTC';

CREATE TABLE tollgate.deployments (
    deployment_id bigint GENERATED ALWAYS AS IDENTITY,
    app text NOT NULL,
    version text NOT NULL,
    schema_revision text NOT NULL,
    deployed_at_us bigint NOT NULL,
    details jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT pk_deployments PRIMARY KEY (deployment_id)
);
COMMENT ON TABLE tollgate.deployments IS 'What was deployed when';
COMMENT ON COLUMN tollgate.deployments.deployed_at_us IS 'when, by our clock, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.deployments.details IS 'digests, commit, who';

CREATE TABLE tollgate.drift_metrics (
    metric_id bigint GENERATED ALWAYS AS IDENTITY,
    bundle_digest text NOT NULL,
    subject text NOT NULL,
    statistic text NOT NULL,
    value double precision,
    window_start_us bigint NOT NULL,
    window_end_us bigint NOT NULL,
    reference_rows bigint NOT NULL,
    current_rows bigint NOT NULL,
    details jsonb DEFAULT '{}'::jsonb NOT NULL,
    recorded_at_us bigint NOT NULL,
    CONSTRAINT pk_drift_metrics PRIMARY KEY (metric_id),
    CONSTRAINT uq_drift_metrics_bundle_digest_subject_statistic_window_54ac
        UNIQUE (bundle_digest, subject, statistic, window_start_us, window_end_us),
    CONSTRAINT ck_drift_metrics_window CHECK (window_start_us < window_end_us),
    CONSTRAINT ck_drift_metrics_rows CHECK (reference_rows >= 0 AND current_rows >= 0)
);
COMMENT ON TABLE tollgate.drift_metrics IS 'Drift statistics: numbers; what follows from them is policy';
COMMENT ON COLUMN tollgate.drift_metrics.bundle_digest IS 'the bundle whose reference window was compared with';
COMMENT ON COLUMN tollgate.drift_metrics.subject IS 'a feature, or the score, the outcome, the label';
COMMENT ON COLUMN tollgate.drift_metrics.statistic IS 'psi, ks, js, ...';
COMMENT ON COLUMN tollgate.drift_metrics.value IS 'null where the window was too small to tell';
COMMENT ON COLUMN tollgate.drift_metrics.window_start_us IS
    'start of the current window, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.drift_metrics.window_end_us IS 'its end, not included, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.drift_metrics.details IS 'bins, significance, grade';
COMMENT ON COLUMN tollgate.drift_metrics.recorded_at_us IS
    'when it was computed, by our clock, microseconds since 1970 UTC';

CREATE TABLE tollgate.retraining_triggers (
    trigger_id bigint GENERATED ALWAYS AS IDENTITY,
    cause text NOT NULL,
    priority smallint NOT NULL,
    status text DEFAULT 'open' NOT NULL,
    evidence jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at_us bigint NOT NULL,
    claimed_by text,
    claimed_at_us bigint,
    closed_at_us bigint,
    outcome text,
    CONSTRAINT pk_retraining_triggers PRIMARY KEY (trigger_id),
    CONSTRAINT ck_retraining_triggers_priority CHECK (priority BETWEEN 0 AND 3),
    CONSTRAINT ck_retraining_triggers_status CHECK (status IN ('open', 'claimed', 'done', 'dismissed')),
    CONSTRAINT ck_retraining_triggers_claim CHECK ((claimed_by IS NULL) = (claimed_at_us IS NULL)),
    CONSTRAINT ck_retraining_triggers_closed CHECK ((closed_at_us IS NOT NULL) = (status IN ('done', 'dismissed')))
);
CREATE INDEX ix_retraining_triggers_priority_created_at_us ON tollgate.retraining_triggers (priority, created_at_us)
    WHERE status = 'open';
COMMENT ON TABLE tollgate.retraining_triggers IS 'Reasons to retrain, taken in order of priority and age';
COMMENT ON COLUMN tollgate.retraining_triggers.cause IS 'concept drift, feature drift, schedule, person, ...';
COMMENT ON COLUMN tollgate.retraining_triggers.priority IS '0 immediate, 1 high, 2 medium, 3 low';
COMMENT ON COLUMN tollgate.retraining_triggers.evidence IS 'the statistics that led to it';
COMMENT ON COLUMN tollgate.retraining_triggers.created_at_us IS 'when, by our clock, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.retraining_triggers.claimed_by IS 'the run that took it';
COMMENT ON COLUMN tollgate.retraining_triggers.claimed_at_us IS 'when it was taken, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.retraining_triggers.closed_at_us IS
    'when it was done or dismissed, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.retraining_triggers.outcome IS 'what came of it';

CREATE TABLE tollgate.model_versions (
    bundle_digest text COLLATE "C" NOT NULL,
    name text NOT NULL,
    version bigint NOT NULL,
    feature_view text NOT NULL,
    status text NOT NULL,
    metrics jsonb DEFAULT '{}'::jsonb NOT NULL,
    trained_from_us bigint NOT NULL,
    trained_until_us bigint NOT NULL,
    registered_at_us bigint NOT NULL,
    CONSTRAINT pk_model_versions PRIMARY KEY (bundle_digest),
    CONSTRAINT uq_model_versions_name_version UNIQUE (name, version),
    CONSTRAINT ck_model_versions_bundle_digest CHECK (length(bundle_digest) = 64),
    CONSTRAINT ck_model_versions_version CHECK (version > 0),
    CONSTRAINT ck_model_versions_window CHECK (trained_from_us < trained_until_us),
    CONSTRAINT ck_model_versions_status
        CHECK (status IN ('candidate', 'shadow', 'challenger', 'champion', 'retired', 'refused'))
);
COMMENT ON TABLE tollgate.model_versions IS 'Model bundles that were ever registered; bundles and pointers lie in Blob';
COMMENT ON COLUMN tollgate.model_versions.bundle_digest IS 'SHA-256 of the bundle''s manifest, 64 hexadecimal digits';
COMMENT ON COLUMN tollgate.model_versions.version IS 'rises with each training of that name';
COMMENT ON COLUMN tollgate.model_versions.metrics IS 'with confidence intervals, as in the manifest';
COMMENT ON COLUMN tollgate.model_versions.trained_from_us IS
    'start of the training window, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.model_versions.trained_until_us IS 'its end, not included, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.model_versions.registered_at_us IS 'when, by our clock, microseconds since 1970 UTC';

CREATE TABLE tollgate.task_metrics (
    run_id text COLLATE "C" NOT NULL,
    task text NOT NULL,
    metric text NOT NULL,
    value double precision NOT NULL,
    recorded_at_us bigint NOT NULL,
    CONSTRAINT pk_task_metrics PRIMARY KEY (run_id, task, metric)
);
COMMENT ON TABLE tollgate.task_metrics IS 'What tasks of a pipeline run measured';
COMMENT ON COLUMN tollgate.task_metrics.recorded_at_us IS
    'when it was measured, by our clock, microseconds since 1970 UTC';

CREATE TABLE tollgate.data_quality_log (
    check_id bigint GENERATED ALWAYS AS IDENTITY,
    source text NOT NULL,
    rule text NOT NULL,
    passed boolean NOT NULL,
    observed double precision,
    window_start_us bigint NOT NULL,
    window_end_us bigint NOT NULL,
    details jsonb DEFAULT '{}'::jsonb NOT NULL,
    recorded_at_us bigint NOT NULL,
    CONSTRAINT pk_data_quality_log PRIMARY KEY (check_id),
    CONSTRAINT uq_data_quality_log_source_rule_window_start_us_window_end_us
        UNIQUE (source, rule, window_start_us, window_end_us),
    CONSTRAINT ck_data_quality_log_window CHECK (window_start_us < window_end_us)
);
COMMENT ON TABLE tollgate.data_quality_log IS 'Checks of data quality and what they found';
COMMENT ON COLUMN tollgate.data_quality_log.window_start_us IS
    'start of what was checked, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.data_quality_log.window_end_us IS 'its end, not included, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.data_quality_log.details IS 'examples without identifiers';
COMMENT ON COLUMN tollgate.data_quality_log.recorded_at_us IS
    'when it was checked, by our clock, microseconds since 1970 UTC';

CREATE TABLE tollgate.pipeline_execution_log (
    run_id text COLLATE "C" NOT NULL,
    pipeline text NOT NULL,
    status text DEFAULT 'running' NOT NULL,
    started_at_us bigint NOT NULL,
    ended_at_us bigint,
    error text,
    details jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT pk_pipeline_execution_log PRIMARY KEY (run_id),
    CONSTRAINT ck_pipeline_execution_log_status CHECK (status IN ('running', 'done', 'failed', 'skipped')),
    CONSTRAINT ck_pipeline_execution_log_ended CHECK ((ended_at_us IS NULL) = (status = 'running'))
);
COMMENT ON TABLE tollgate.pipeline_execution_log IS 'Runs of pipelines';
COMMENT ON COLUMN tollgate.pipeline_execution_log.started_at_us IS 'when, by our clock, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.pipeline_execution_log.ended_at_us IS 'when, by our clock, microseconds since 1970 UTC';
COMMENT ON COLUMN tollgate.pipeline_execution_log.details IS 'parameters and results';

-- For people: the tables themselves hold integers.

CREATE FUNCTION tollgate.instant(us bigint) RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$ SELECT to_timestamp(us / 1000000) + (us % 1000000) * interval '1 microsecond' $$;
COMMENT ON FUNCTION tollgate.instant(bigint) IS 'microseconds since 1970 UTC as a time, exact';

CREATE VIEW tollgate.v_transactions AS
SELECT transaction_id, tollgate.instant(event_time_us) AS event_time, customer_id, terminal_id, amount_minor, currency,
    customer_version, terminal_version, flags & 1 <> 0 AS late_for_customer, flags & 2 <> 0 AS late_for_terminal,
    tollgate.instant(recorded_at_us) AS recorded_at
FROM tollgate.transactions;
COMMENT ON VIEW tollgate.v_transactions IS 'transactions with times and flags in words';

CREATE VIEW tollgate.v_predictions AS
SELECT transaction_id, tollgate.instant(event_time_us) AS event_time,
    (ARRAY['approve', 'review', 'decline'])[outcome + 1] AS outcome, score, bundle_digest,
    log_writer, log_sequence, log_leaf, tollgate.instant(recorded_at_us) AS recorded_at
FROM tollgate.predictions;
COMMENT ON VIEW tollgate.v_predictions IS 'decisions with times and outcomes in words, without their canonical bytes';

-- How old code may be that works with this schema. A migration that contracts replaces it.
CREATE FUNCTION tollgate.oldest_release() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT '0001' $$;
COMMENT ON FUNCTION tollgate.oldest_release() IS 'the oldest revision that running code may have been written for';

-- Runs with its owner's rights, so that who calls it needs none to make tables.
-- Each partition is made as a table of its own and then attached: that takes SHARE UPDATE EXCLUSIVE on the parent, for
-- which neither reading nor writing waits; CREATE TABLE ... PARTITION OF would take ACCESS EXCLUSIVE.
CREATE FUNCTION tollgate.make_partitions(from_us bigint, to_us bigint) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '10s'
AS $$
DECLARE
    width_us constant bigint := 7 * 86400 * 1000000::bigint;
    most constant bigint := 260;
    end_us constant bigint := 253370764800000000; -- the year 9999
    start_us bigint;
    parent text;
    child text;
    made integer := 0;
BEGIN
    IF from_us IS NULL OR to_us IS NULL OR from_us < 0 OR to_us <= from_us OR to_us > end_us THEN
        RAISE EXCEPTION 'the span must not be empty and must lie between 1970 and 9999' USING ERRCODE = '22023';
    END IF;
    IF (to_us - 1) / width_us - from_us / width_us >= most THEN
        RAISE EXCEPTION 'at most % weeks at once', most USING ERRCODE = '22023';
    END IF;
    -- One at a time: two who make the same table would collide. The key is "tollpart" in ASCII.
    PERFORM pg_advisory_xact_lock(x'746f6c6c70617274'::bigint);
    FOR week IN from_us / width_us .. (to_us - 1) / width_us LOOP
        start_us := week * width_us;
        FOREACH parent IN ARRAY ARRAY['transactions', 'predictions'] LOOP
            child := parent || '_p' || to_char(to_timestamp(start_us / 1000000) AT TIME ZONE 'UTC', 'YYYYMMDD');
            CONTINUE WHEN EXISTS (
                SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = 'tollgate' AND c.relname = child AND c.relispartition
            );
            EXECUTE format('CREATE TABLE tollgate.%I (LIKE tollgate.%I INCLUDING ALL)', child, parent);
            EXECUTE format('ALTER TABLE tollgate.%I ATTACH PARTITION tollgate.%I FOR VALUES FROM (%s) TO (%s)',
                parent, child, start_us, start_us + width_us);
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION tollgate.make_partitions(bigint, bigint) IS
    'makes the missing time partitions for event times from from_us to to_us, the end not included; returns how many';
REVOKE ALL ON FUNCTION tollgate.make_partitions(bigint, bigint) FROM PUBLIC;
