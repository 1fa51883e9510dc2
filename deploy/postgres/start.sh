#!/bin/sh
# Starts one of the two databases of compose.cluster.yaml, as a standby of the other one if that takes writes.
#
# LEDGER_NAME is this one's name, LEDGER_PEER the other one's. Where neither has data, the one that has
# LEDGER_NEW=true makes a new ledger, and the other one is copied from it; without that nobody makes one, because a
# database that merely does not answer must not be taken for none. One that took writes and finds that the other one does
# has been replaced, if the other one's history (its timeline) is the longer: it must not take any again.
set -eu

say() {
  echo "payment-router: $1" >&2
}

# A process with number 1 is ended by no signal that it does not ask for.
trap 'exit 130' INT TERM

ask_peer() {
  PGPASSWORD=$POSTGRES_PASSWORD PGCONNECT_TIMEOUT=3 psql --no-psqlrc --tuples-only --no-align \
    --host "$LEDGER_PEER" --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --command "$1"
}

# t if it takes writes, f if it follows someone, and nothing, with psql's reason, if it does not say.
peer_takes_writes() {
  ask_peer 'SELECT NOT pg_is_in_recovery()' || true
}

pause() {
  sleep 2 &
  wait $!
}

# From now on the other one confirms nothing that this one has not got.
be_waited_for() {
  ask_peer "ALTER SYSTEM SET synchronous_standby_names = '$LEDGER_NAME'" >/dev/null
  ask_peer 'SELECT pg_reload_conf()' >/dev/null
}

# Makes a copy aside, so that half of one is never taken for a whole.
copy_peer() {
  unfinished=$PGDATA.unfinished
  rm -rf "$unfinished"
  ask_peer "SELECT pg_create_physical_replication_slot('$LEDGER_NAME') WHERE NOT EXISTS \
    (SELECT FROM pg_replication_slots WHERE slot_name = '$LEDGER_NAME')" >/dev/null
  PGPASSWORD=$POSTGRES_PASSWORD pg_basebackup --pgdata "$unfinished" --write-recovery-conf --checkpoint fast \
    --slot "$LEDGER_NAME" --dbname "host=$LEDGER_PEER user=$POSTGRES_USER" &
  wait $!
  # Once it takes writes itself, it waits for nobody until someone follows it.
  echo "synchronous_standby_names = ''" >>"$unfinished/postgresql.auto.conf"
  mv "$unfinished" "$PGDATA"
}

# What a database has counted of itself, in the file that it keeps of that.
control() {
  LC_ALL=C pg_controldata "$PGDATA" | sed -n "s/^$1: *//p"
}

# The timeline that this one is on: a promotion writes a history of its timeline at once, and counts it later.
our_timeline() {
  latest=$(control "Latest checkpoint's TimeLineID")
  for history in "$PGDATA"/pg_wal/????????.history; do
    [ -e "$history" ] || continue
    name=$(basename "$history" .history)
    [ $((0x$name)) -le "$latest" ] || latest=$((0x$name))
  done
  echo "$latest"
}

# This one took writes, and so does the other one: only the one with the longer history may.
settle_with_peer() {
  ours="$(control 'Database system identifier') $(our_timeline)"
  theirs=$(ask_peer "SELECT system_identifier || ' ' || \
    ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int FROM pg_control_system()")
  if [ "${ours% *}" != "${theirs% *}" ]; then
    say "$LEDGER_PEER has another ledger than this one. Find out which is the right one, and stop the other"
    exit 1
  elif [ "${ours#* }" -lt "${theirs#* }" ]; then
    say "$LEDGER_PEER takes writes in place of this one. Remove this one's volume and start it again: it is copied"
    exit 1
  elif [ "${ours#* }" -gt "${theirs#* }" ]; then
    say "$LEDGER_PEER was replaced by this one, and takes writes all the same: stop it, remove its volume, and start it again"
  else
    say "$LEDGER_PEER takes writes as this one did, and neither shows which is the later one. Remove neither: stop both and see what they have"
    exit 1
  fi
}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  while [ "$(peer_takes_writes)" != t ] && [ "${LEDGER_NEW:-false}" != true ]; do
    say "there is no data here: waiting for $LEDGER_PEER to take writes, to copy it. Only the first of two new ones is to be started with LEDGER_NEW=true"
    pause
  done
  if [ "$(peer_takes_writes)" = t ]; then
    say "copying $LEDGER_PEER"
    copy_peer
    be_waited_for
  else
    say 'making a new ledger'
  fi
elif [ "$(peer_takes_writes)" = t ]; then
  if [ -e "$PGDATA/standby.signal" ]; then
    be_waited_for
  else
    settle_with_peer
  fi
fi
# The image's own way to start makes a database where there is none. A standby is known to the other one by this
# name, and what copies is not: a copy that may yet fail is nothing to rely on.
exec docker-entrypoint.sh "$@" -c "cluster_name=$LEDGER_NAME"
