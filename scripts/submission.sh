#!/usr/bin/env bash
# Writes the folder that the contest wants.
set -euo pipefail

# How a wrong call is answered (EX_USAGE).
readonly EXIT_USAGE=64

usage() {
  cat <<HELP
scripts/submission.sh --image NAMESPACE/REPOSITORY:TAG [OPTIONS] DIR

Writes docker-compose.yml, info.json and README.md to DIR, and checks the compose file against the
contest's rules (rinha-test rules --published). The compose file is this project's with a published
image in place of one to be built, and without monitoring and archive. Push the image first:

  docker build --tag NAMESPACE/REPOSITORY:TAG . && docker push NAMESPACE/REPOSITORY:TAG

  --name NAME      who sends it in (git's user.name)
  --source URL     where the sources are (the remote origin)
  --social URL     a page of the sender; may be given several times

DIR is the folder of a participant in the contest's repository. Nothing is sent anywhere.
HELP
}

wrong() {
  echo "scripts/submission.sh: $1; see scripts/submission.sh --help" >&2
  exit "$EXIT_USAGE"
}

image='' name='' source_url='' folder='' socials=()
while (($# > 0)); do
  case $1 in
    --help) usage && exit ;;
    --image | --name | --source | --social)
      if (($# < 2)); then
        wrong "$1 needs a value"
      fi
      case $1 in
        --image) image=$2 ;;
        --name) name=$2 ;;
        --source) source_url=$2 ;;
        --social) socials+=("$2") ;;
      esac
      shift
      ;;
    -*) wrong "there is no option $1" ;;
    *)
      if [[ -n $folder ]]; then
        wrong "one folder is written, not $folder and $1"
      fi
      folder=$1
      ;;
  esac
  shift
done
if [[ -z $image || -z $folder ]]; then
  wrong 'an image and a folder are needed'
fi
if ! [[ $image =~ ^[a-z0-9./:_-]+/[a-z0-9._-]+:[A-Za-z0-9._-]+$ ]]; then
  wrong "$image is no published image, such as someone/payment-router:0.1.0"
fi
folder=$(realpath -m "$folder")
cd "$(dirname "$0")/.."
name=${name:-$(git config user.name || true)}
source_url=${source_url:-$(git config remote.origin.url || true)}

mkdir -p "$folder"
{
  echo '# Written by scripts/submission.sh. Its sources and how it works: README.md.'
  sed -e '/^  # Monitoring,/,/^  # End of monitoring/d' -e '/^ *# Archive,/,/^ *# End of archive/d' \
    -e "s|^  image: .*|  image: $image|" -e '/^  build: /d' compose.yaml
} >"$folder/docker-compose.yml"

python3 - "$name" "$source_url" "$image" "${socials[@]}" >"$folder/info.json" <<'PYTHON'
import json, sys
name, source, image, *socials = sys.argv[1:]
print(json.dumps({
    "name": name,
    "social": socials,
    "source-code-repo": source,
    "langs": ["rust"],
    "storages": ["sled", "append-only journals"],
    "messaging": ["unix sockets"],
    "load-balancers": ["own, hands accepted connections over (SCM_RIGHTS)"],
    "other-technologies": ["tokio", "hyper", "crossbeam-channel"],
}, indent=2, ensure_ascii=False))
PYTHON

cat >"$folder/README.md" <<README
# Payment router

A payment intermediary in Rust that loses nothing and pays nothing twice.

- **lb** accepts on port 9999 and hands each connection, not its bytes, to an API over a Unix socket.
- **api-1, api-2** answer \`202\` once a payment is in their journal, and settle it through the cheaper
  processor that is likely to be in time.
- **store** reads both journals, decides which of two equal ids may be sent, and answers summaries
  from sled.

Image: \`$image\`. Sources: $source_url
README

exec cargo run --locked --quiet --package rinha-test -- rules --published "$folder/docker-compose.yml"
