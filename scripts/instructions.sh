#!/usr/bin/env bash
# Counts the instructions of taking one payment in, and compares them with what the project keeps.
set -euo pipefail

cd "$(dirname "$0")/.."
readonly KEPT=scripts/intake.instructions
# What a count may be above the one that is kept.
readonly TOLERANCE_PERCENT=5
# Two runs of these many payments: their difference has no start and no end in it.
readonly PAYMENTS_FEW=2000
readonly PAYMENTS_MANY=12000

if [[ ${1:-} == --help ]]; then
  cat <<HELP
scripts/instructions.sh [--keep]

Counts, with valgrind, the instructions that an API takes for one payment, from a readable socket to
its 202, over one connection, so that each payment is written by itself. The figure is the same
whatever else the machine does. It must be at most $TOLERANCE_PERCENT % above the one in $KEPT,
which was counted with the compiler that is named there; with another one there is nothing to
compare.

  --keep   write what was counted to $KEPT
HELP
  exit
fi
if (($# > 1)) || [[ ${1:---keep} != --keep ]]; then
  echo 'scripts/instructions.sh takes --keep and nothing else; see --help' >&2
  exit 64
fi
if ! command -v valgrind >/dev/null; then
  echo 'skipped: valgrind is not installed (Debian: apt-get install valgrind)'
  exit
fi

# Only what is counted has to be optimised.
cargo build --release --locked --package api --bins
cargo build --locked --package rinha-test --bins
readonly TARGET="${CARGO_TARGET_DIR:-target}"
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT

# All instructions of an API that takes in so many payments.
count() {
  local file="$folder/$1"
  "$TARGET/debug/rinha-test" intake --programs "$TARGET/release" --rounds 1 --connections 1 --payments "$1" \
    --under "valgrind --quiet --tool=callgrind --callgrind-out-file=$file" >"$file.log" 2>&1 \
    || { cat "$file.log" >&2; return 1; }
  sed -n 's/^totals: //p' "$file"
}

few=$(count "$PAYMENTS_FEW")
many=$(count "$PAYMENTS_MANY")
counted=$(((many - few) / (PAYMENTS_MANY - PAYMENTS_FEW)))
compiler=$(rustc --version)
echo "$counted instructions for each payment taken in ($compiler)"
if [[ ${1:-} == --keep ]]; then
  printf '%s\n%s\n' "$counted" "$compiler" >"$KEPT"
  exit
fi
{ read -r kept && read -r kept_compiler; } <"$KEPT"
if [[ $compiler != "$kept_compiler" ]]; then
  echo "skipped: $KEPT has $kept, counted with $kept_compiler"
  exit
fi
if ((counted * 100 > kept * (100 + TOLERANCE_PERCENT))); then
  echo "that is more than $TOLERANCE_PERCENT % above the $kept of $KEPT: find out why, or keep the" \
    'new count with scripts/instructions.sh --keep and say why it is worth it' >&2
  exit 1
fi
echo "kept: $kept"
