#!/usr/bin/env bash
# Puts the running system under load, or starts one for it, and judges it.
set -euo pipefail

readonly ROUTER_DEFAULT=http://127.0.0.1:9999
readonly READY_SECONDS=60
# How a wrong call is answered (EX_USAGE).
readonly EXIT_USAGE=64

usage() {
  cat <<HELP
scripts/stress.sh SCENARIO [ARGUMENTS]

Scenarios:
  contest   the contest's test: a minute of growing load from k6 while the processors become slow
            and fail, with audits and the score at the end. Its settings are environment
            variables, see rinha-test/contest.js; TIME_SCALE=0.2 makes it short
  flood     payments as fast as they go, then all books are compared; the arguments are those of
            \`rinha-test flood\`

The system at ROUTER_URL, or for a flood at its --url, is used if one of them is given, and else the
one on $ROUTER_DEFAULT if there is one. Else one is built, started on a temporary data
folder, and ended afterwards. Figures are kept in ./reports/. The exit code is 0 only if nothing
failed and all books agree.

The contest empties all books at its start. A system that was not started for it must allow that
(\`scripts/up.sh --allow-purge\`), and loses its payments; one that does not is left alone.
HELP
}

case ${1:-} in
  --help | '') usage && exit ;;
  contest | flood) ;;
  *)
    echo "there is no scenario $1; see scripts/stress.sh --help" >&2
    exit "$EXIT_USAGE"
    ;;
esac
readonly SCENARIO=$1
shift

# Where the load goes, if the caller says so.
router=${ROUTER_URL:-}
if [[ $SCENARIO == flood ]]; then
  url_given=''
  arguments=("$@")
  for i in "${!arguments[@]}"; do
    case ${arguments[i]} in
      --url) url_given=${arguments[i + 1]:-} ;;
      --url=*) url_given=${arguments[i]#--url=} ;;
    esac
  done
  if [[ -n $url_given ]]; then
    router=$url_given
  elif [[ -n $router ]]; then
    set -- --url "$router" "$@"
  fi
fi

cd "$(dirname "$0")/.."
readonly RINHA_TEST="${CARGO_TARGET_DIR:-target}/release/rinha-test"
load=''
system=''
folder=''

# shellcheck disable=SC2317 # It is called by the trap.
clean_up() {
  for pid in $load $system; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" || true
  done
  if [[ -n $folder ]]; then
    rm -rf "$folder"
  fi
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

answers() {
  local address=${ROUTER_DEFAULT#http://}
  (exec 3<>"/dev/tcp/${address/://}") 2>/dev/null
}

start_system() {
  folder=$(mktemp -d)
  echo "starting a system on a temporary folder; its log is $1" >&2
  "$RINHA_TEST" up --allow-purge --data "$folder/data" >"$1" 2>&1 &
  system=$!
  for _ in $(seq $((READY_SECONDS * 10))); do
    if grep -q '^ready$' "$1"; then
      return
    fi
    kill -0 "$system" 2>/dev/null || break
    sleep 0.1
  done
  echo "the system did not become ready:" >&2
  tail -n 20 "$1" >&2
  exit 1
}

cargo build --release --locked --workspace --bins
mkdir -p reports
report="reports/$SCENARIO-$(date -u +%Y%m%dT%H%M%SZ)"
if [[ -z $router ]] && ! answers; then
  start_system "$PWD/$report.log"
fi

# A signal has its effect while this shell waits, and only after a program that it runs itself.
put_load() {
  "$@" &
  load=$!
  local code=0
  wait "$load" || code=$?
  load=''
  return "$code"
}

code=0
if [[ $SCENARIO == contest ]]; then
  k6=$(scripts/k6.sh)
  export RESULT="$report.json"
  put_load "$k6" run --no-usage-report --quiet "$@" rinha-test/contest.js || code=$?
else
  put_load "$RINHA_TEST" flood --json "$report.json" "$@" || code=$?
fi
if [[ -f $report.json ]]; then
  echo "figures: $report.json"
fi
exit "$code"
