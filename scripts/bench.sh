#!/usr/bin/env bash
# Measures everything that is to be fast, and prints it beside what was measured before.
set -euo pipefail

cd "$(dirname "$0")/.."
readonly PARTS=(pieces intake instructions flood contest k6 connections idle watching rebuild summaries archive)
readonly EXIT_USAGE=64
readonly IDLE_SECONDS=60

if [[ ${1:-} == --help ]]; then
  cat <<HELP
scripts/bench.sh [--rounds N] [PART...]

  pieces        the hot pieces by themselves (criterion): journal, parser, router, engine, claims,
                database, summaries over up to ten million payments (1.6 GB of temporary files)
  intake        an API that only takes payments in, beside the floor
  instructions  the instructions of that, as valgrind counts them
  flood         scripts/stress.sh flood: half a million payments as fast as they go
  contest       scripts/stress.sh contest
  k6            the same by k6, the contest's own client, and the floor by k6 for twice as long
  connections   the first request of a connection and a later one, beside the floor
  idle          CPU time of all processes in $IDLE_SECONDS s in which nothing is asked; on the usual ports
  watching      what it costs that somebody follows the live page, at the contest's rate
  rebuild       the time that a store takes from its start to its first answer
  summaries     CPU time of a store for each summary that it is asked for, over up to ten million payments
  archive       payments archived a second, and the time of a restore; needs PostgreSQL

All of them without a name. Floods, contests, by k6 as well, and intake are done N times (5), and the figures are
medians. docs/performance.md has what was measured before, and what it means. On a machine where
Docker runs, its rules for packets cost every request some time: \`unshare -n\` with the loopback
interface up is without them.
HELP
  exit
fi

rounds=5
if [[ ${1:-} == --rounds ]]; then
  rounds=${2:-}
  shift 2 || { echo 'scripts/bench.sh: --rounds needs a number' >&2; exit "$EXIT_USAGE"; }
fi
if [[ ! $rounds =~ ^[1-9][0-9]*$ ]]; then
  echo "scripts/bench.sh: --rounds needs a number, not '$rounds'" >&2
  exit "$EXIT_USAGE"
fi
for part in "$@"; do
  if [[ " ${PARTS[*]} " != *" $part "* ]]; then
    echo "scripts/bench.sh: there is no part $part; they are: ${PARTS[*]}" >&2
    exit "$EXIT_USAGE"
  fi
done

cargo build --release --locked --workspace --bins
readonly RINHA_TEST="${CARGO_TARGET_DIR:-target}/release/rinha-test"

pieces() {
  cargo bench --locked -p ledger --bench journal
  cargo bench --locked -p api --bench hot
  cargo bench --locked -p store --bench books
}

intake() {
  "$RINHA_TEST" intake --rounds "$rounds"
}

instructions() {
  scripts/instructions.sh
}

flood() {
  "$RINHA_TEST" run flood --rounds "$rounds"
}

contest() {
  "$RINHA_TEST" run contest --rounds "$rounds"
}

k6() {
  local program
  program=$(scripts/python-tool.sh k6)
  # As long before and as long after as the contest itself: what k6 sees depends on how long it runs.
  "$RINHA_TEST" run contest --client k6 --k6 "$program" --set floor.share=2 --rounds "$rounds"
}

connections() {
  scripts/connections.py --programs "$(dirname "$RINHA_TEST")" --rounds "$rounds"
}

# Clock ticks of all processes of the router, by the pid files of a system that runs here.
ticks() {
  local sum=0 pid
  for name in store api-1 api-2 lb; do
    read -r pid <"$1/run/$name.pid"
    sum=$((sum + $(sed 's/.*) //' "/proc/$pid/stat" | cut -d' ' -f12,13 | tr ' ' '+')))
  done
  echo "$sum"
}

idle() {
  local folder system before after
  folder=$(mktemp -d)
  "$RINHA_TEST" up --data "$folder/data" --metrics-port 0 >"$folder/log" 2>&1 &
  system=$!
  # shellcheck disable=SC2064 # The pid and the folder of now.
  trap "kill $system 2>/dev/null || true; wait $system 2>/dev/null || true; rm -r '$folder'" EXIT
  until grep -q ready "$folder/log"; do
    kill -0 "$system" 2>/dev/null || { cat "$folder/log" >&2; return 1; }
    sleep 0.1
  done
  sleep 5
  before=$(ticks "$folder/data")
  sleep "$IDLE_SECONDS"
  after=$(ticks "$folder/data")
  echo "CPU of all processes in $IDLE_SECONDS idle seconds: $(((after - before) * 1000 / $(getconf CLK_TCK))) ms"
  kill "$system"
  wait "$system" || true
  trap - EXIT
  rm -r "$folder"
}

watching() {
  scripts/watching.py --programs "$(dirname "$RINHA_TEST")"
}

rebuild() {
  cargo bench --locked -p store --bench rebuild -- --payments 1000000
  cargo bench --locked -p store --bench rebuild -- --payments 5000000
}

summaries() {
  cargo bench --locked -p store --bench summaries
}

archive() {
  cargo bench --locked -p store --bench archive -- --payments 1000000
}

for part in "${PARTS[@]}"; do
  if (($# == 0)) || [[ " $* " == *" $part "* ]]; then
    printf '\n== %s\n' "$part"
    "$part"
  fi
done
