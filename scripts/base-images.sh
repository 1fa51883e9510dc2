#!/usr/bin/env bash
# Sees to it that images of others are there, also where none can be pulled.
set -euo pipefail

# How a wrong call is answered (EX_USAGE).
readonly EXIT_USAGE=64
# What it needs is not on this machine (EX_UNAVAILABLE).
readonly EXIT_UNAVAILABLE=69
readonly PULL_SECONDS_MAX=300
# Where the stand-in has the toolchain, and what cargo fetches.
readonly RUST=/usr/local/rust
readonly CARGO=/usr/local/cargo
# The Debian whose PostgreSQL a stand-in has.
readonly POSTGRES_RELEASE=bookworm

if [[ ${1:-} == --help ]]; then
  cat <<HELP
scripts/base-images.sh [IMAGE...]

Looks for each of these images, or else for each base image that the Dockerfile names. One that is
there is left alone, else it is pulled. Where that fails too, a stand-in is built under the same tag,
by debootstrap. It is labelled as a stand-in, and \`docker rmi\` of the tag makes room for the real one.

  rust:VERSION-slim-RELEASE  a Debian of that release with gcc, this machine's own Rust toolchain,
                             which must be no older, and its certificates
  postgres:VERSION           Debian $POSTGRES_RELEASE with its PostgreSQL, of whatever version that
                             is, and a way to start that does what the compose files need of the real
                             image's

A stand-in needs root and debootstrap (Debian: apt-get install debootstrap). It takes about a
minute.
HELP
  exit
fi

if [[ ${1:-} == -* ]]; then
  echo "scripts/base-images.sh has no option $1; see scripts/base-images.sh --help" >&2
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

# Makes the root of a Debian of this release with these packages: $root.
make_root() {
  local tag=$1 release=$2 packages=$3
  if ! command -v debootstrap >/dev/null; then
    missing "$tag cannot be pulled, and its stand-in needs debootstrap (Debian: apt-get install debootstrap)"
  fi
  if [[ $(id -u) != 0 ]]; then
    missing "$tag cannot be pulled, and debootstrap, for its stand-in, needs root"
  fi
  folder=$(mktemp -d)
  trap 'rm -rf --one-file-system "$folder"' EXIT
  root=$folder/root
  if ! debootstrap --variant=minbase --include="$packages" "$release" "$root" >"$folder/log" 2>&1; then
    tail -n 20 "$folder/log" >&2
    missing "debootstrap failed"
  fi
}

# Makes it the image of that tag, with these changes, and removes it.
import_root() {
  local tag=$1
  shift
  tar -C "$root" --numeric-owner --one-file-system --exclude='./proc/*' --exclude='./sys/*' \
    --exclude='./dev/*' --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' -c . |
    docker import "$@" --message "stand-in for $tag" - "$tag" >/dev/null
  rm -rf --one-file-system "$folder"
}

# Builds a stand-in for rust:VERSION-slim-RELEASE.
stand_in_for_rust() {
  local tag=$1 version=$2 release=$3 have sysroot
  have=$(rustc --version | cut -d' ' -f2)
  if [[ $(printf '%s\n' "$version" "$have" | sort --version-sort | head -n 1) != "$version" ]]; then
    missing "$tag cannot be pulled, and Rust $have of this machine is older"
  fi
  echo "$tag cannot be pulled: building a stand-in with Rust $have"
  sysroot=$(rustc --print sysroot)
  make_root "$tag" "$release" gcc,libc6-dev
  mkdir -p "$root/etc/ssl/certs" "$root$RUST" "$root$CARGO"
  # Without documentation, which is half of it.
  tar -C "$sysroot" --exclude=lib/rustlib/src -c bin lib | tar -C "$root$RUST" --no-same-owner -x
  cp --dereference "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$root/etc/ssl/certs/ca-certificates.crt"
  import_root "$tag" \
    --change "ENV PATH=$RUST/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    --change "ENV CARGO_HOME=$CARGO" \
    --change "LABEL payment-router.stand-in=$have"
}

# Builds a stand-in for postgres:VERSION. As in the real image all is done by its user postgres, or by
# root, who becomes that user.
stand_in_for_postgres() {
  local tag=$1 have programs
  echo "$tag cannot be pulled: building a stand-in with the PostgreSQL of Debian $POSTGRES_RELEASE"
  make_root "$tag" "$POSTGRES_RELEASE" postgresql
  programs=$(echo "$root"/usr/lib/postgresql/*/bin)
  programs=${programs#"$root"}
  have=$(basename "$(dirname "$programs")")
  # As the real image has it: no database of the package's, open to the container's network, and a folder for
  # the volume that is the user's.
  rm -rf "$root"/etc/postgresql/* "$root"/var/lib/postgresql/*
  echo "listen_addresses = '*'" >>"$root/usr/share/postgresql/$have/postgresql.conf.sample"
  install -d -m 1777 "$root/var/lib/postgresql/data" "$root/docker-entrypoint-initdb.d"
  chroot "$root" chown postgres:postgres /var/lib/postgresql/data
  chroot "$root" install -d -m 3777 -o postgres -g postgres /run/postgresql
  cat >"$root/usr/local/bin/docker-entrypoint.sh" <<'ENTRYPOINT'
#!/bin/bash
# What the way to start of the image postgres does, as far as this stand-in is used.
set -euo pipefail
if [[ $1 != postgres ]]; then
  exec "$@"
fi
if [[ $(id -u) == 0 ]]; then
  mkdir -p "$PGDATA"
  chown -R postgres: "$PGDATA"
  exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
mkdir -p "$PGDATA"
chmod 700 "$PGDATA" || true
if [[ -s $PGDATA/PG_VERSION ]]; then
  exec "$@"
fi
if [[ -z ${POSTGRES_PASSWORD:-} ]]; then
  echo 'Error: Database is uninitialized and superuser password is not specified.' >&2
  exit 1
fi
export POSTGRES_USER=${POSTGRES_USER:-postgres}
export POSTGRES_DB=${POSTGRES_DB:-$POSTGRES_USER}
initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD")
printf '\nhost all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
pg_ctl -w -o "-c listen_addresses=''" start
query=(psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --no-password)
if [[ $POSTGRES_DB != postgres ]]; then
  "${query[@]}" --dbname postgres -c "CREATE DATABASE \"$POSTGRES_DB\""
fi
for file in /docker-entrypoint-initdb.d/*; do
  case $file in
    *.sh) if [[ -x $file ]]; then "$file"; else . "$file"; fi ;;
    *.sql) "${query[@]}" --dbname "$POSTGRES_DB" -f "$file" ;;
  esac
done
pg_ctl -w -m fast stop
exec "$@"
ENTRYPOINT
  chmod 755 "$root/usr/local/bin/docker-entrypoint.sh"
  import_root "$tag" \
    --change "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$programs" \
    --change 'ENV LANG=C.UTF-8' \
    --change 'ENV PGDATA=/var/lib/postgresql/data' \
    --change 'VOLUME /var/lib/postgresql/data' \
    --change 'ENTRYPOINT ["docker-entrypoint.sh"]' \
    --change 'EXPOSE 5432' \
    --change 'CMD ["postgres"]' \
    --change "LABEL payment-router.stand-in=$have"
}

stand_in() {
  local tag=$1
  if [[ $tag =~ ^rust:([0-9.]+)-slim-([a-z]+)$ ]]; then
    stand_in_for_rust "$tag" "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
  elif [[ $tag =~ ^postgres:[0-9.]+$ ]]; then
    stand_in_for_postgres "$tag"
  else
    missing "$tag cannot be pulled, and there is no stand-in for it"
  fi
}

if (($# > 0)); then
  tags=("$@")
else
  mapfile -t tags < <(sed -n 's/^ARG [A-Z]*_IMAGE=//p' Dockerfile)
fi
for tag in "${tags[@]}"; do
  if docker image inspect "$tag" >/dev/null 2>&1; then
    echo "$tag is there"
  elif timeout "$PULL_SECONDS_MAX" docker pull --quiet "$tag" 2>/dev/null; then
    echo "$tag was pulled"
  else
    stand_in "$tag"
  fi
done
