#!/usr/bin/env bash
# Installs the programs of other people that the end-to-end tests talk to, and the one that links the program: the list is below.
# Does nothing where all of them are there. Needs root on Debian or a system like it; elsewhere it says what to install.
set -euo pipefail

# Program, and Debian's packages that have it.
declare -A packages=(
  [caddy]=caddy
  [chromium]=chromium
  [curl]=curl
  [dpkg-deb]=dpkg
  [gcc]="gcc libc6-dev"
  [git]=git
  [ip]=iproute2
  [nc]=netcat-openbsd
  [nginx]=nginx
  [node]=nodejs
  [npm]=npm
  [openssl]=openssl
  [pgbench]=postgresql-contrib
  [postgres]=postgresql
  [redis-cli]=redis-tools
  [redis-server]=redis-server
  [ssh]=openssh-client
  [sshd]=openssh-server
  [unshare]=util-linux
  [pip3]=python3-pip
)

# Debian puts some programs where only root looks, and those of PostgreSQL where nobody does.
search="$PATH:/usr/sbin:/sbin"
for folder in /usr/lib/postgresql/*/bin; do search="$search:$folder"; done

missing=()
for program in "${!packages[@]}"; do
  PATH="$search" command -v "$program" > /dev/null || missing+=(${packages[$program]})
done
[ "${#missing[@]}" -eq 0 ] && exit 0

if ! command -v apt-get > /dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "The end-to-end tests need programs that are not installed. Debian's packages with them are: ${missing[*]}." >&2
  if command -v apt-get > /dev/null; then
    echo "Install them with: sudo apt-get install ${missing[*]}" >&2
  fi
  exit 1
fi

apt-get update --quiet --quiet
# RUNLEVEL=1 keeps a package from starting a server of its own.
RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes --no-install-recommends "${missing[@]}"
