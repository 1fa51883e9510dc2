#!/bin/sh
# What the first of two databases gets once, when it is made: room for its standby. That it waits for the
# standby takes effect with its next start, so that what makes the database does not wait.
set -eu
echo 'host replication all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<SQL
ALTER SYSTEM SET synchronous_standby_names = '$LEDGER_PEER';
SELECT pg_create_physical_replication_slot('$LEDGER_PEER');
SQL
