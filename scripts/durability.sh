#!/usr/bin/env bash
# Measures what --durability disk costs against process.
set -euo pipefail

# How a wrong call is answered (EX_USAGE).
readonly EXIT_USAGE=64

usage() {
  cat <<HELP
scripts/durability.sh [ROUNDS] [OPTIONS OF rinha-test run]

Floods a fresh system with --durability process and one with disk in turn, ROUNDS times each (5),
and prints the medians: accepted payments per second, CPU time of the router's four processes per
payment until all are settled, latency at p50 and p99; and the ratios of disk to process. The
systems keep their data under TMPDIR, which should lie on the disk that is asked about.
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
cargo build --release --locked --workspace --bins
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# One flood of a fresh system: rate, CPU µs per payment, p50 and p99 in µs.
measure() {
  local durability=$1
  shift
  PAYROUTER_API_DURABILITY=$durability "$RINHA_TEST" run flood --out "$folder/out" \
    --set load.payments=20000 --set floor.share=0 "$@" >"$folder/log" 2>&1 || {
    cat "$folder/log" >&2
    exit 1
  }
  python3 - "$folder/out/result.json" <<'PYTHON'
import json, sys
result = json.load(open(sys.argv[1]))
print(result["throughput_per_s"], result["cpu_us_per_payment"], result["p50_ms"] * 1e3, result["p99_ms"] * 1e3)
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
