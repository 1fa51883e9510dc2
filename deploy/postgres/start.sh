#!/bin/sh
# Starts one of the two databases of compose.cluster.yaml, as a standby of the other one if that takes writes.
#
# LEDGER_NAME is this one's name, LEDGER_PEER the other one's. Where neither has data yet, the one with
# LEDGER_IS_FIRST=true is made, and the other one is copied from it. One that took writes and finds that the
# other one does now has been replaced, and must not take any again: it does not start.
set -eu

say() {
  echo "payment-router: $1" >&2
}

ask_peer() {
  PGPASSWORD=$POSTGRES_PASSWORD PGCONNECT_TIMEOUT=3 psql --no-psqlrc --tuples-only --no-align \
    --host "$LEDGER_PEER" --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --command "$1"
}

peer_takes_writes() {
  [ "$(ask_peer 'SELECT NOT pg_is_in_recovery()' 2>/dev/null)" = t ]
}

# Makes a copy aside, so that half of one is never taken for a whole, and has the other one wait for it.
copy_peer() {
  unfinished=$PGDATA.unfinished
  rm -rf "$unfinished"
  ask_peer "SELECT pg_create_physical_replication_slot('$LEDGER_NAME') WHERE NOT EXISTS \
    (SELECT FROM pg_replication_slots WHERE slot_name = '$LEDGER_NAME')" >/dev/null
  PGPASSWORD=$POSTGRES_PASSWORD pg_basebackup --pgdata "$unfinished" --write-recovery-conf --checkpoint fast \
    --slot "$LEDGER_NAME" --dbname "host=$LEDGER_PEER user=$POSTGRES_USER"
  # Once it takes writes itself, it waits for nobody until someone is copied from it.
  echo "synchronous_standby_names = ''" >>"$unfinished/postgresql.auto.conf"
  mv "$unfinished" "$PGDATA"
  ask_peer "ALTER SYSTEM SET synchronous_standby_names = '$LEDGER_NAME'" >/dev/null
  ask_peer 'SELECT pg_reload_conf()' >/dev/null
}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  if [ "$LEDGER_IS_FIRST" != true ]; then
    until peer_takes_writes; do
      say "waiting for $LEDGER_PEER, to copy it"
      sleep 1
    done
  fi
  if peer_takes_writes; then
    say "copying $LEDGER_PEER"
    copy_peer
  fi
elif [ ! -e "$PGDATA/standby.signal" ] && peer_takes_writes; then
  say "$LEDGER_PEER takes writes in place of this one. Remove this one's volume and start it again: it is copied"
  exit 1
fi
# The image's own way to start makes a database where there is none. A standby is known to the other one by this
# name, and what copies is not: a copy that may yet fail is nothing to rely on.
exec docker-entrypoint.sh "$@" -c "cluster_name=$LEDGER_NAME"
