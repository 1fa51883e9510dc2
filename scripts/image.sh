#!/usr/bin/env bash
# Builds the image of these very sources, unless it is there, and prints its name.
set -euo pipefail

# How a wrong call is answered (EX_USAGE).
readonly EXIT_USAGE=64
# What it needs is not on this machine (EX_UNAVAILABLE).
readonly EXIT_UNAVAILABLE=69
# How docker run says that the engine failed, not the program.
readonly EXIT_ENGINE=125
# How timeout says that it was too long.
readonly EXIT_TIMEOUT=124
# Seconds that a container may take to start and end.
readonly RUN_SECONDS=120
readonly NAME=payment-router
# What the image is built from, as .dockerignore has it.
readonly SOURCES=(Dockerfile .dockerignore Cargo.toml Cargo.lock rinha-test/Cargo.toml
  api ledger lb monitor payment-processor store)

if [[ ${1:-} == --help ]]; then
  cat <<HELP
scripts/image.sh

Prints the name of the image of these sources, $NAME:sources-HASH, where HASH is that of all that
it is built from, so that an image of other sources is never taken for it. Where it is missing it is
built first; scripts/base-images.sh sees to the base images. Those of other sources are left there:
\`docker image ls $NAME\` lists them. Without a Docker engine that runs containers, or without a way
to the base images, the exit code is $EXIT_UNAVAILABLE.
HELP
  exit
fi

if (($# > 0)); then
  echo "scripts/image.sh takes no arguments; see scripts/image.sh --help" >&2
  exit "$EXIT_USAGE"
fi

cd "$(dirname "$0")/.."
if ! docker version >/dev/null 2>&1; then
  echo 'scripts/image.sh: no Docker engine answers' >&2
  exit "$EXIT_UNAVAILABLE"
fi

hash=$(find "${SOURCES[@]}" -type f -not -path '*/target/*' -print0 | LC_ALL=C sort -z |
  xargs -0 sha256sum | sha256sum | cut -c1-16)
readonly IMAGE="$NAME:sources-$hash"
if ! docker image inspect "$IMAGE" >/dev/null 2>&1; then
  scripts/base-images.sh >&2
  echo "building $IMAGE" >&2
  revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
  docker build --tag "$IMAGE" --build-arg "REVISION=$revision" . >&2
fi

# An engine may answer and yet have nothing to run containers with.
code=0
answer=$(timeout "$RUN_SECONDS" docker run --rm --network none "$IMAGE" /bin/lb --help 2>&1) || code=$?
if ((code == EXIT_ENGINE)); then
  echo "scripts/image.sh: the Docker engine answers, but runs no container: $answer" >&2
  exit "$EXIT_UNAVAILABLE"
elif ((code == EXIT_TIMEOUT)); then
  echo "scripts/image.sh: the Docker engine has not run a container within $RUN_SECONDS s" >&2
  exit 1
elif ((code)); then
  echo "scripts/image.sh: $IMAGE does not run: $answer" >&2
  exit 1
fi
echo "$IMAGE"
