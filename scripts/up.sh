#!/usr/bin/env bash
# Builds the system and runs it on this machine.
set -euo pipefail

cd "$(dirname "$0")/.."
readonly RINHA_TEST="${CARGO_TARGET_DIR:-target}/release/rinha-test"

if [[ ${1:-} == --help ]]; then
  cat <<'HELP'
scripts/up.sh [OPTIONS]

Builds everything and runs it on this machine, without containers: two simulated payment
processors, the store, two APIs and the balancer, on http://127.0.0.1:9999, and the monitor, with a
live page on http://127.0.0.1:9100 and all metrics on http://127.0.0.1:9100/metrics. Ctrl-C ends it.
The options are those of `rinha-test up`.

HELP
  if [[ -x $RINHA_TEST ]]; then
    exec "$RINHA_TEST" up --help
  fi
  exit
fi

cargo build --release --locked --workspace --bins
exec "$RINHA_TEST" up "$@"
