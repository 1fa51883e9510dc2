#!/usr/bin/env bash
# Puts a system under a scenario's load and judges it. All of it is `rinha-test run`.
set -euo pipefail

# How a wrong call is answered (EX_USAGE).
readonly EXIT_USAGE=64

usage() {
  cat <<HELP
scripts/stress.sh SCENARIO [--against URL] [--out DIR] [--rounds N] [OPTIONS]
scripts/stress.sh compare FILE SCENARIO [OPTIONS]
scripts/stress.sh --docker SCENARIO [OPTIONS]

Scenarios, each a file in rinha-test/scenarios/ (or the path of one of your own):
HELP
  for file in rinha-test/scenarios/{contest,users,flood,soak,chaos,bounds}.toml; do
    printf '  %-9s %s\n' "$(basename "$file" .toml)" "$(sed -n 's/^description = "\(.*\)"/\1/p' "$file")"
  done
  cat <<HELP

A system of its own is built, started on a temporary folder with simulated processors, in a box of
1.5 CPUs and 350 MB where control groups allow it, and ended afterwards. With --against URL the
system there is used, and its processors are set back at the end. The contest empties all books
first, so a system that is used for it must allow that (scripts/up.sh --allow-purge).

With --docker the two compose files are built and brought up, the containers are measured, and all is
taken down again, its volume included. It needs the ports 8001, 8002 and 9999.

  --client k6        let k6 run the contest; it is installed where it is missing
  --set KEY=VALUE    change a setting of the scenario: --set load.seconds=10
  --help             all options

A table is printed; result.json and report.html go to DIR (reports/SCENARIO-TIME). The exit code is
0 only if nothing was lost, paid twice or altered, all books agree, and what the scenario expects
came out. Ctrl-C ends what was started.
HELP
}

cd "$(dirname "$0")/.."
in_docker=''
if [[ ${1:-} == --docker ]]; then
  in_docker=yes
  shift
fi
case ${1:-} in
  '' | --help) usage && exit ;;
  -*)
    echo "a scenario comes first; see scripts/stress.sh --help" >&2
    exit "$EXIT_USAGE"
    ;;
esac

# The plugin where it works, else the program.
compose() {
  if docker compose version >/dev/null 2>&1; then
    docker compose "$@"
  else
    docker-compose "$@"
  fi
}

# shellcheck disable=SC2317 # It is called by the trap.
take_down() {
  if [[ -n $load ]]; then
    kill "$load" 2>/dev/null || true
    wait "$load" || true
  fi
  compose down --volumes --timeout 20 || true
  compose -f payment-processor/compose.yaml down --timeout 20 || true
}

load=''
readonly READY_SECONDS=60
bring_up() {
  export ALLOW_PURGE=true
  compose -f payment-processor/compose.yaml up -d --build
  compose up -d --build
  for _ in $(seq $((READY_SECONDS * 20))); do
    if curl --silent --fail --output /dev/null http://127.0.0.1:9999/payments-summary; then
      return
    fi
    sleep 0.05
  done
  compose logs --tail=20 >&2
  echo "the containers do not answer on port 9999" >&2
  exit 1
}

cargo build --release --locked --workspace --bins
previous=''
for argument in "$@"; do
  if [[ $argument == --client=k6 || $previous$argument == --clientk6 ]]; then
    K6=$(scripts/k6.sh)
    export K6
  fi
  previous=$argument
done
readonly RINHA_TEST="${CARGO_TARGET_DIR:-target}/release/rinha-test"
if [[ -n $in_docker ]]; then
  trap take_down EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  bring_up
  code=0
  # A signal has its effect while this shell waits, and only after a program that it runs itself.
  "$RINHA_TEST" run "$@" --against http://127.0.0.1:9999 \
    --containers "$(compose ps -q | paste -sd,)" &
  load=$!
  wait "$load" || code=$?
  load=''
  warnings=$(compose logs --no-color | grep -cE ' (WARN|ERROR) ' || true)
  echo "lines of warning or error in the containers' logs: $warnings"
  exit "$code"
fi
if [[ $1 == compare ]]; then
  exec "$RINHA_TEST" "$@"
fi
exec "$RINHA_TEST" run "$@"
