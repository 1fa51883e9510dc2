#!/usr/bin/env bash
# Runs all checks, and all tests last.
set -euo pipefail

readonly DENY_VERSION=0.20.2
# How scripts/image.sh says that there can be no image here (EX_UNAVAILABLE).
readonly EXIT_UNAVAILABLE=69

if [[ ${1:-} == --help ]]; then
  cat <<HELP
scripts/test.sh

Runs every check that a change must pass: the format, the lints of Rust and of the scripts, the
dependency policy, the documentation and its examples, the fuzz targets with FUZZ_INPUTS each (50000),
the simulation of SIMULATE_SEEDS histories of payments (200000), the instructions of taking a payment
in, and last all tests. cargo-deny, k6, playwright and schemathesis are installed into ./.tools and ./.venv
where they are missing. Where a Docker engine answers the image is built as well, which takes some minutes
the first time, and tested in containers.
HELP
  exit
fi

if (($# > 0)); then
  echo "scripts/test.sh takes no arguments; see scripts/test.sh --help" >&2
  exit 64
fi

cd "$(dirname "$0")/.."
export PATH="$PWD/.tools/bin:$PATH"

step() {
  printf '\n== %s (after %d s)\n' "$1" "$SECONDS"
}

step 'format'
cargo fmt --all --check

step 'scripts'
if command -v shellcheck >/dev/null; then
  shellcheck scripts/*.sh deploy/postgres/*.sh .ci/run
else
  echo 'skipped: shellcheck is not installed (Debian: apt-get install shellcheck)'
fi

step 'lints'
cargo clippy --workspace --all-targets --locked -- -D warnings

step 'dependency policy'
if ! command -v cargo-deny >/dev/null; then
  # It runs for seconds: not worth minutes of optimising.
  CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    cargo install cargo-deny --locked --version "$DENY_VERSION" --root .tools
fi
cargo deny --locked check bans licenses sources
cargo deny --locked --manifest-path fuzz/Cargo.toml check bans licenses sources
if timeout 120 cargo deny --locked fetch db; then
  cargo deny --locked check --disable-fetch advisories
  cargo deny --locked --manifest-path fuzz/Cargo.toml check --disable-fetch advisories
else
  echo 'skipped: advisories, because their database cannot be fetched from here'
fi

step 'documentation'
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items --locked
cargo test --workspace --doc --locked

step 'fuzzing'
cargo fmt --manifest-path fuzz/Cargo.toml --check
if command -v c++ >/dev/null; then
  # On a fresh clone the same inputs for every change: what is new is looked for by runs without a seed.
  scripts/fuzz.sh --seed 1 --inputs "${FUZZ_INPUTS:-50000}"
else
  echo 'skipped: fuzzing, because there is no C++ compiler (Debian: apt-get install g++)'
fi

# Tests of one crate run the programs of the others.
cargo build --workspace --bins --locked

step 'simulation'
cargo run --locked --quiet --package rinha-test -- simulate --seeds "${SIMULATE_SEEDS:-200000}"

step 'the contest'"'"'s rules'
cargo run --locked --quiet --package rinha-test -- rules compose.yaml
submission=$(mktemp -d)
trap 'rm -rf "$submission"' EXIT
scripts/submission.sh --image example/payment-router:0.1.0 "$submission"

step 'image'
code=0
scripts/image.sh || code=$?
if ((code == EXIT_UNAVAILABLE)); then
  echo 'skipped: the image, and with it all tests in containers'
elif ((code)); then
  exit "$code"
elif ! docker compose version >/dev/null 2>&1 && ! command -v docker-compose >/dev/null; then
  echo 'skipped: tests in containers, because there is no docker compose (Debian: apt-get install docker-compose)'
fi

step 'instructions'
scripts/instructions.sh

step 'tests'
if k6=$(scripts/python-tool.sh k6); then
  export K6=$k6
else
  echo 'skipped: the check of scoring.js, because k6 cannot be installed here'
fi
if schemathesis=$(scripts/python-tool.sh schemathesis); then
  export SCHEMATHESIS=$schemathesis
else
  echo 'skipped: the check of the API against its description, because schemathesis cannot be installed here'
fi
if playwright=$(scripts/python-tool.sh playwright); then
  export PLAYWRIGHT=$playwright
else
  echo 'skipped: the page in a browser, because playwright cannot be installed here'
fi
if command -v cargo-nextest >/dev/null; then
  cargo nextest run --workspace --locked
else
  cargo test --workspace --lib --bins --tests --locked
fi
