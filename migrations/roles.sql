-- Roles of least privilege for valuedrift on PostgreSQL 13 or newer (docs/database.md).
--
--   valuedrift db roles | psql -v ON_ERROR_STOP=1 --single-transaction -d DATABASE
--
-- Run it as a superuser or the owner of the database with CREATEROLE; run it again after an upgrade: it changes what
-- differs and nothing else. It sets no passwords: ALTER ROLE valuedrift_writer PASSWORD '...', or \password in psql.
--
--   valuedrift_migrator  owns the tables: db upgrade, db downgrade, db prune
--   valuedrift_writer    watch, and whatever else brings data in; cannot create, alter, drop or delete
--   valuedrift_reader    Grafana, reports: reads only, for at most 30 seconds a query; sees neither the key that
--                        text hashes are made with, nor the hashes, nor excerpts of texts

DO $roles$
DECLARE
    ours constant text[] := ARRAY['valuedrift_migrator', 'valuedrift_writer', 'valuedrift_reader'];
    -- the schema the tables are in: that of the session, usually public
    home constant text := current_schema();
    role text;
    item record;
BEGIN
    IF home IS NULL THEN
        RAISE EXCEPTION 'no schema is selected; set search_path';
    END IF;
    FOREACH role IN ARRAY ours LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION', role);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', home, role);
    END LOOP;
    -- since PostgreSQL 15 nobody but the owner may create there; before, everybody
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', home);
    EXECUTE format('GRANT CREATE ON SCHEMA %I TO valuedrift_migrator', home);
    -- batches are copied into a temporary table
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO valuedrift_writer', current_database());

    -- the migrator owns what there is; only who may act for it can give it tables
    IF NOT pg_has_role(current_user, 'valuedrift_migrator', 'USAGE') THEN
        EXECUTE format('GRANT valuedrift_migrator TO %I', current_user);
    END IF;
    FOR item IN
        SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = home AND c.relkind IN ('r', 'p') AND pg_get_userbyid(c.relowner) <> 'valuedrift_migrator'
            AND (c.relname = ANY (ARRAY['alembic_version', 'alert_events', 'alert_states', 'alerts', 'baselines',
                    'buckets', 'dead_letters', 'event_keys', 'label_sums', 'offsets', 'outbox', 'points', 'readings',
                    'reports', 'reviews', 'second_judgements', 'series', 'settings', 'silences', 'turns',
                    'turn_texts'])
                OR c.relname ~ '^((turns|turn_texts|points)_\d{4}_\d{2}|event_keys_\d+)$')
    LOOP
        EXECUTE format('ALTER TABLE %I.%I OWNER TO valuedrift_migrator', home, item.relname);
    END LOOP;
    IF to_regprocedure(format('%I.valuedrift_make_month(text, date)', home)) IS NOT NULL THEN
        EXECUTE format('ALTER FUNCTION %I.valuedrift_make_month(text, date) OWNER TO valuedrift_migrator', home);
        EXECUTE format('REVOKE ALL ON FUNCTION %I.valuedrift_make_month(text, date) FROM PUBLIC', home);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %I.valuedrift_make_month(text, date) TO valuedrift_writer', home);
    END IF;

    -- tables, as far as they are there: a right is given on a table and goes for all its partitions
    FOR item IN
        SELECT * FROM (VALUES
            ('alembic_version',   'SELECT',                 'SELECT'),
            ('settings',          'SELECT',                 NULL),
            ('offsets',           'SELECT, INSERT, UPDATE', 'SELECT'),
            ('series',            'SELECT, INSERT, UPDATE', 'SELECT'),
            ('event_keys',        'SELECT, INSERT',         'SELECT'),
            ('turns',             'SELECT, INSERT',         'SELECT'),
            ('turn_texts',        'SELECT, INSERT',         NULL),
            ('second_judgements', 'SELECT, INSERT',         'SELECT'),
            ('reviews',           'SELECT, INSERT',         'SELECT'),
            ('buckets',           'SELECT, INSERT, UPDATE', 'SELECT'),
            ('label_sums',        'SELECT, INSERT, UPDATE', 'SELECT'),
            ('points',            'SELECT, INSERT, UPDATE', 'SELECT'),
            ('baselines',         'SELECT, INSERT, UPDATE', 'SELECT'),
            ('alerts',            'SELECT, INSERT, UPDATE', 'SELECT'),
            ('readings',          'SELECT, INSERT, UPDATE', 'SELECT'),
            ('alert_states',      'SELECT, INSERT, UPDATE', 'SELECT'),
            ('alert_events',      'SELECT, INSERT',         'SELECT'),
            ('silences',          'SELECT, INSERT, UPDATE', 'SELECT'),
            ('outbox',            'SELECT, INSERT, UPDATE', 'SELECT'),
            ('dead_letters',      'SELECT, INSERT',         'SELECT'),
            ('reports',           'SELECT, INSERT, UPDATE', 'SELECT')
        ) AS rights (name, writer, reader)
        WHERE to_regclass(format('%I.%I', home, name)) IS NOT NULL
    LOOP
        EXECUTE format('REVOKE ALL ON %I.%I FROM PUBLIC, valuedrift_writer, valuedrift_reader', home, item.name);
        EXECUTE format('GRANT %s ON %I.%I TO valuedrift_writer', item.writer, home, item.name);
        IF item.name = 'turns' THEN
            EXECUTE format('GRANT SELECT (%s) ON %I.turns TO valuedrift_reader', (
                SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
                WHERE attrelid = to_regclass(format('%I.turns', home)) AND attnum > 0 AND NOT attisdropped
                    AND attname <> 'text_hash'
            ), home);
        ELSIF item.reader IS NOT NULL THEN
            EXECUTE format('GRANT %s ON %I.%I TO valuedrift_reader', item.reader, home, item.name);
        END IF;
    END LOOP;
    FOR item IN
        SELECT s.relname FROM pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace
            JOIN pg_depend d ON d.objid = s.oid AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
            JOIN pg_class t ON t.oid = d.refobjid
        WHERE n.nspname = home AND s.relkind = 'S' AND t.relname IN ('offsets', 'series', 'baselines', 'alert_events')
    LOOP
        EXECUTE format('GRANT USAGE, SELECT ON SEQUENCE %I.%I TO valuedrift_writer', home, item.relname);
    END LOOP;

    -- tables of later versions: the writer can go on at once; the reader sees them when this has been run again
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE valuedrift_migrator IN SCHEMA %I '
        'GRANT SELECT, INSERT, UPDATE ON TABLES TO valuedrift_writer', home);
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE valuedrift_migrator IN SCHEMA %I '
        'GRANT USAGE, SELECT ON SEQUENCES TO valuedrift_writer', home);
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE valuedrift_migrator IN SCHEMA %I '
        'GRANT EXECUTE ON FUNCTIONS TO valuedrift_writer', home);
    ALTER DEFAULT PRIVILEGES FOR ROLE valuedrift_migrator REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
END
$roles$;

-- they hold for whoever logs in as this role; repeat them for further users who are members of it
ALTER ROLE valuedrift_reader SET default_transaction_read_only = on;
ALTER ROLE valuedrift_reader SET statement_timeout = '30s';
ALTER ROLE valuedrift_reader SET idle_in_transaction_session_timeout = '60s';
