#!/usr/bin/env bash
# Feeds every parser of bytes from outside with inputs that libFuzzer makes up.
set -euo pipefail

# How a wrong call is answered (EX_USAGE).
readonly EXIT_USAGE=64
readonly EXIT_FAILED=1
# What it needs is not on this machine (EX_UNAVAILABLE).
readonly EXIT_UNAVAILABLE=69
# Bytes of an input: more than a request's head and body, and than most journals of a few records.
readonly INPUT_BYTES_MAX=8192
readonly MEMORY_MIB_MAX=1024

usage() {
  cat <<HELP
scripts/fuzz.sh [--seconds N | --inputs N] [--seed N] [TARGET...]

Builds the fuzz targets in fuzz/targets and runs each of those given, or all, for N seconds (60) or
with N inputs, as many targets at a time as there are processors. They begin with the inputs in
fuzz/seeds and with what earlier runs found (fuzz/corpus, which git ignores). An input that makes a
target fail is kept in fuzz/artifacts, and how to run it again is printed. With a seed and a number of
inputs they are the same each time, on a fresh clone; without a seed they are others.

Needs a C++ compiler, for libFuzzer (Debian: apt-get install g++).
HELP
}

# take_limit OPTION NUMBER: when a target has run enough, as libFuzzer is told it.
take_limit() {
  if ! [[ $2 =~ ^[1-9][0-9]*$ ]]; then
    echo "$1 takes a whole number from 1" >&2
    exit "$EXIT_USAGE"
  fi
  case $1 in
    --seconds) limit=-max_total_time=$2 ;;
    --inputs) limit=-runs=$2 ;;
  esac
}

limit=-max_total_time=60
# What libFuzzer takes for "a different one each time".
seed=0
targets=()
while (($# > 0)); do
  case $1 in
    --help) usage && exit ;;
    --seconds | --inputs) take_limit "$1" "${2:-}" && shift $(($# > 1)) ;;
    --seconds=* | --inputs=*) take_limit "${1%%=*}" "${1#*=}" ;;
    --seed) seed=${2:-} && shift $(($# > 1)) ;;
    --seed=*) seed=${1#--seed=} ;;
    -*)
      echo "there is no option $1; see scripts/fuzz.sh --help" >&2
      exit "$EXIT_USAGE"
      ;;
    *) targets+=("$1") ;;
  esac
  shift
done
if ! [[ $seed =~ ^[0-9]{1,9}$ ]]; then
  echo '--seed takes a whole number of at most nine digits' >&2
  exit "$EXIT_USAGE"
fi

cd "$(dirname "$0")/../fuzz"
if ((${#targets[@]} == 0)); then
  for file in targets/*.rs; do
    targets+=("$(basename "$file" .rs)")
  done
fi
for target in "${targets[@]}"; do
  if ! [[ -f targets/$target.rs ]]; then
    echo "there is no target $target in fuzz/targets" >&2
    exit "$EXIT_USAGE"
  fi
done

if ! command -v c++ >/dev/null; then
  echo 'fuzzing needs a C++ compiler (Debian: apt-get install g++)' >&2
  exit "$EXIT_UNAVAILABLE"
fi

# Coverage as libFuzzer wants it, from the stable compiler. A target that is named keeps build
# scripts and macros without it.
triple=$(rustc -vV | sed -n 's/^host: //p')
readonly triple
flags='--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4'
flags+=' -Cllvm-args=-sanitizer-coverage-inline-8bit-counters'
flags+=' -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares'
root=$(cd .. && pwd)
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/fuzz"
RUSTFLAGS=$flags cargo build --release --locked --target "$triple" --bins
readonly PROGRAMS="$CARGO_TARGET_DIR/$triple/release"

# Runs one target, and tells how to repeat a failure.
run() {
  local target=$1 options=() artifacts=artifacts/$1/
  mkdir -p "corpus/$target" "$artifacts"
  if [[ -f dictionaries/$target.txt ]]; then
    options+=("-dict=dictionaries/$target.txt")
  fi
  local log=artifacts/$target.log
  if "$PROGRAMS/$target" "${options[@]}" "$limit" -seed="$seed" \
    -max_len="$INPUT_BYTES_MAX" -rss_limit_mb="$MEMORY_MIB_MAX" -timeout=10 -use_value_profile=1 \
    -print_final_stats=1 \
    -artifact_prefix="$artifacts" "corpus/$target" "seeds/$target" >"$log" 2>&1; then
    local inputs covered
    inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    echo "$target: $inputs inputs, $covered places reached, nothing found"
    return
  fi
  tail -n 40 "$log"
  local input
  input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
  echo "$target: failed; its log is fuzz/$log"
  if [[ -n $input ]]; then
    echo "again: $PROGRAMS/$target fuzz/$input"
  fi
  return 1
}

failed=0
for target in "${targets[@]}"; do
  while (($(jobs -rp | wc -l) >= $(nproc))); do
    wait -n || failed=1
  done
  run "$target" &
done
while [[ -n $(jobs -p) ]]; do
  wait -n || failed=1
done
if ((failed)); then
  exit "$EXIT_FAILED"
fi
