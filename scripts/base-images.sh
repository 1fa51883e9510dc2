#!/usr/bin/env bash
# Sees to it that the Dockerfile's base images are there, also where none can be pulled.
set -euo pipefail

# How a wrong call is answered (EX_USAGE).
readonly EXIT_USAGE=64
# What it needs is not on this machine (EX_UNAVAILABLE).
readonly EXIT_UNAVAILABLE=69
readonly PULL_SECONDS_MAX=300
# Where the stand-in has the toolchain, and what cargo fetches.
readonly RUST=/usr/local/rust
readonly CARGO=/usr/local/cargo

if [[ ${1:-} == --help ]]; then
  cat <<HELP
scripts/base-images.sh

Looks for each base image that the Dockerfile names. One that is there is left alone, else it is
pulled. Where that fails too, a stand-in is built under the same tag, from what this machine has: a
Debian of that release by debootstrap with gcc, this machine's own Rust toolchain, and its
certificates. It is labelled as a stand-in, and \`docker rmi\` of the tag makes room for the real one.

A stand-in needs root and debootstrap (Debian: apt-get install debootstrap), and a toolchain that is
no older than the tag says. It takes about half a minute.
HELP
  exit
fi

if (($# > 0)); then
  echo "scripts/base-images.sh takes no arguments; see scripts/base-images.sh --help" >&2
  exit "$EXIT_USAGE"
fi

cd "$(dirname "$0")/.."

missing() {
  echo "scripts/base-images.sh: $1" >&2
  exit "$EXIT_UNAVAILABLE"
}

if ! docker version >/dev/null 2>&1; then
  missing 'no Docker engine answers'
fi

# Builds a stand-in for rust:VERSION-slim-RELEASE.
stand_in() {
  local tag=$1 version release have sysroot
  if ! [[ $tag =~ ^rust:([0-9.]+)-slim-([a-z]+)$ ]]; then
    missing "$tag cannot be pulled, and there is no stand-in for it"
  fi
  version=${BASH_REMATCH[1]}
  release=${BASH_REMATCH[2]}
  if ! command -v debootstrap >/dev/null; then
    missing "$tag cannot be pulled, and its stand-in needs debootstrap (Debian: apt-get install debootstrap)"
  fi
  if [[ $(id -u) != 0 ]]; then
    missing "$tag cannot be pulled, and debootstrap, for its stand-in, needs root"
  fi
  have=$(rustc --version | cut -d' ' -f2)
  if [[ $(printf '%s\n' "$version" "$have" | sort --version-sort | head -n 1) != "$version" ]]; then
    missing "$tag cannot be pulled, and Rust $have of this machine is older"
  fi
  echo "$tag cannot be pulled: building a stand-in with Rust $have"
  sysroot=$(rustc --print sysroot)
  folder=$(mktemp -d)
  trap 'rm -rf --one-file-system "$folder"' EXIT
  local root=$folder/root
  if ! debootstrap --variant=minbase --include=gcc,libc6-dev "$release" "$root" >"$folder/log" 2>&1; then
    tail -n 20 "$folder/log" >&2
    missing "debootstrap failed"
  fi
  mkdir -p "$root/etc/ssl/certs" "$root$RUST" "$root$CARGO"
  # Without documentation, which is half of it.
  tar -C "$sysroot" --exclude=lib/rustlib/src -c bin lib | tar -C "$root$RUST" --no-same-owner -x
  cp --dereference "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$root/etc/ssl/certs/ca-certificates.crt"
  tar -C "$root" --numeric-owner --one-file-system --exclude='./proc/*' --exclude='./sys/*' \
    --exclude='./dev/*' --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' -c . | docker import \
    --change "ENV PATH=$RUST/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    --change "ENV CARGO_HOME=$CARGO" \
    --change "LABEL payment-router.stand-in=$have" \
    --message "stand-in for $tag" - "$tag" >/dev/null
}

while read -r tag; do
  if docker image inspect "$tag" >/dev/null 2>&1; then
    echo "$tag is there"
  elif timeout "$PULL_SECONDS_MAX" docker pull --quiet "$tag" 2>/dev/null; then
    echo "$tag was pulled"
  else
    stand_in "$tag"
  fi
done < <(sed -n 's/^ARG [A-Z]*_IMAGE=//p' Dockerfile)
