#!/usr/bin/env bash
# Injects faults into a running system, and judges what is left.
set -euo pipefail

# How a wrong call is answered (EX_USAGE).
readonly EXIT_USAGE=64

usage() {
  cat <<HELP
scripts/chaos.sh [--seed N] [--rounds COUNT] [ARGUMENTS]

Builds the system, starts one of its own on free ports and in a temporary folder, and puts it under
load while faults are drawn from the seed and injected: processes that are killed or stand still,
processors that answer late, wrongly, not at all or too late, a full disk, failing syncs, torn
records, views of the store that are deleted or overwritten, clocks that step, purges. After every
round all is mended, and clients, processors, journals, summaries and look-ups must agree.

The arguments are those of \`rinha-test chaos\`; 20 rounds take some five to ten minutes. The seed is
printed first; the same seed injects the same faults again, and --plan only prints them.

The exit code is 0 only if no payment was lost or paid twice and all books agree; else it is 1, and
the folder with data, logs and findings is kept. A wrong call is answered with $EXIT_USAGE.

Examples:
  scripts/chaos.sh
  scripts/chaos.sh --seed 7 --rounds 20
  scripts/chaos.sh --seed 7 --rounds 20 --durability disk
HELP
}

if [[ ${1:-} == --help ]]; then
  usage
  exit
fi

cd "$(dirname "$0")/.."
cargo build --release --locked --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/release/rinha-test" chaos "$@"
