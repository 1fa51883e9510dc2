#!/usr/bin/env bash
# Puts a system under a scenario's load and judges it. All of it is `rinha-test run`.
set -euo pipefail

# How a wrong call is answered (EX_USAGE).
readonly EXIT_USAGE=64

usage() {
  cat <<HELP
scripts/stress.sh SCENARIO [--against URL] [--out DIR] [--rounds N] [OPTIONS]
scripts/stress.sh compare FILE SCENARIO [OPTIONS]

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

  --client k6        let k6 run the contest; it is installed where it is missing
  --set KEY=VALUE    change a setting of the scenario: --set load.seconds=10
  --help             all options

A table is printed; result.json and report.html go to DIR (reports/SCENARIO-TIME). The exit code is
0 only if nothing was lost, paid twice or altered, all books agree, and what the scenario expects
came out. Ctrl-C ends what was started.
HELP
}

cd "$(dirname "$0")/.."
case ${1:-} in
  '' | --help) usage && exit ;;
  -*)
    echo "a scenario comes first; see scripts/stress.sh --help" >&2
    exit "$EXIT_USAGE"
    ;;
esac

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
if [[ $1 == compare ]]; then
  exec "$RINHA_TEST" "$@"
fi
exec "$RINHA_TEST" run "$@"
