#!/usr/bin/env bash
# Measures what --durability disk costs against process.
set -euo pipefail

# How a wrong call is answered (EX_USAGE).
readonly EXIT_USAGE=64
readonly READY_SECONDS=60

usage() {
  cat <<HELP
scripts/durability.sh [ROUNDS] [FLOOD OPTIONS]

Floods a fresh system with --durability process and one with disk in turn, ROUNDS times each (5),
and prints the medians: accepted payments per second, CPU time of the router's four processes per
payment until all are settled, latency at p50 and p99; and the ratios of disk to process. The
systems keep their data under TMPDIR, which should lie on the disk that is asked about. Their ports
are BASE_PORT (19990) and the two after it.
HELP
}

rounds=5
case ${1:-} in
  --help) usage && exit ;;
  [1-9]*) rounds=$1 && shift ;;
esac
if ! [[ $rounds =~ ^[0-9]+$ ]]; then
  echo 'ROUNDS is a whole number; see scripts/durability.sh --help' >&2
  exit "$EXIT_USAGE"
fi

cd "$(dirname "$0")/.."
readonly RINHA_TEST="${CARGO_TARGET_DIR:-target}/release/rinha-test"
readonly PORT=${BASE_PORT:-19990}
cargo build --release --locked --workspace --bins
folder=$(mktemp -d)
system=''

# shellcheck disable=SC2317 # It is called by the trap.
clean_up() {
  if [[ -n $system ]]; then
    kill "$system" 2>/dev/null || true
    wait "$system" || true
  fi
  rm -rf "$folder"
}
trap clean_up EXIT

# CPU time of the router's processes so far, in clock ticks.
cpu_ticks() {
  local name
  for name in lb api-1 api-2 store; do
    # The name in brackets may have spaces; the times are the 12th and 13th field after it.
    sed 's/.*) //' "/proc/$(<"$folder/data/run/$name.pid")/stat"
  done | awk '{ ticks += $12 + $13 } END { print ticks }'
}

# One flood of a fresh system: rate, CPU µs per payment, p50 and p99 in µs.
measure() {
  local durability=$1 before after
  shift
  : >"$folder/log"
  PAYROUTER_API_DURABILITY=$durability "$RINHA_TEST" up --data "$folder/data" --port "$PORT" \
    --default-port $((PORT + 1)) --fallback-port $((PORT + 2)) >>"$folder/log" 2>&1 &
  system=$!
  for _ in $(seq $((READY_SECONDS * 10))); do
    grep -q '^ready$' "$folder/log" && break
    if ! kill -0 "$system" 2>/dev/null; then
      cat "$folder/log" >&2
      exit 1
    fi
    sleep 0.1
  done
  before=$(cpu_ticks)
  "$RINHA_TEST" flood --url "http://127.0.0.1:$PORT" --default-url "http://127.0.0.1:$((PORT + 1))" \
    --fallback-url "http://127.0.0.1:$((PORT + 2))" --json "$folder/flood.json" "$@" >"$folder/flood.log"
  after=$(cpu_ticks)
  kill "$system"
  wait "$system" || true
  system=''
  rm -rf "$folder/data"
  python3 - "$folder/flood.json" "$((after - before))" "$(getconf CLK_TCK)" <<'PYTHON'
import json, sys
report = json.load(open(sys.argv[1]))
cpu_us = int(sys.argv[2]) * 1e6 / int(sys.argv[3]) / report["accepted"]
print(report["rate_per_second"], cpu_us, report["p50_us"], report["p99_us"])
PYTHON
}

for round in $(seq "$rounds"); do
  for durability in process disk; do
    measure "$durability" "$@" >"$folder/figures"
    cat "$folder/figures" >>"$folder/$durability"
    echo "round $round, $durability: $(<"$folder/figures")" >&2
  done
done
python3 - "$folder/process" "$folder/disk" <<'PYTHON'
import statistics, sys
def medians(path):
    rows = [[float(word) for word in line.split()] for line in open(path)]
    return [statistics.median(column) for column in zip(*rows)]
process, disk = map(medians, sys.argv[1:])
names = ["payments per second", "CPU µs per payment", "p50 µs", "p99 µs"]
print(f"{'median of':24}{'process':>10}{'disk':>10}{'ratio':>8}")
for name, left, right in zip(names, process, disk):
    print(f"{name:24}{left:10.1f}{right:10.1f}{right / left:8.2f}")
PYTHON
