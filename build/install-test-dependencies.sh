#!/usr/bin/env bash
# Installs the programs of other people that the end-to-end tests talk to: curl, git, nginx, node and npm.
# Does nothing where all of them are there. Needs root on Debian or a system like it; elsewhere it says what to install.
set -euo pipefail

missing=()
for program in curl git nginx node npm; do
  # Debian puts nginx where only root looks.
  PATH="$PATH:/usr/sbin:/sbin" command -v "$program" > /dev/null || missing+=("$program")
done
[ "${#missing[@]}" -eq 0 ] && exit 0

if ! command -v apt-get > /dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "The end-to-end tests need these programs, which are not installed: ${missing[*]}." >&2
  if command -v apt-get > /dev/null; then
    echo "Install them with: sudo apt-get install ${missing[*]/#node/nodejs}" >&2
  else
    echo "Install them with the package manager of this system; Debian's packages are curl, git, nginx, nodejs and npm." >&2
  fi
  exit 1
fi

packages=("${missing[@]/%node/nodejs}")
apt-get update --quiet --quiet
# RUNLEVEL=1 keeps the package from starting a web server of its own.
RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes --no-install-recommends "${packages[@]}"
