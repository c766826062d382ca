#!/usr/bin/env bash
# Installs the programs of other people that the end-to-end tests talk to: curl, git, nginx, node, npm, ssh and sshd.
# Does nothing where all of them are there. Needs root on Debian or a system like it; elsewhere it says what to install.
set -euo pipefail

missing=()
for program in curl git nginx node npm ssh sshd; do
  # Debian puts nginx where only root looks.
  PATH="$PATH:/usr/sbin:/sbin" command -v "$program" > /dev/null || missing+=("$program")
done
[ "${#missing[@]}" -eq 0 ] && exit 0

# Debian's packages are named otherwise in three cases.
packages=()
for program in "${missing[@]}"; do
  case "$program" in
    node) packages+=(nodejs) ;;
    ssh) packages+=(openssh-client) ;;
    sshd) packages+=(openssh-server) ;;
    *) packages+=("$program") ;;
  esac
done

if ! command -v apt-get > /dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "The end-to-end tests need these programs, which are not installed: ${missing[*]}." >&2
  if command -v apt-get > /dev/null; then
    echo "Install them with: sudo apt-get install ${packages[*]}" >&2
  else
    echo "Install them with the package manager of this system; Debian's packages are curl, git, nginx, nodejs, npm, openssh-client and openssh-server." >&2
  fi
  exit 1
fi

apt-get update --quiet --quiet
# RUNLEVEL=1 keeps packages from starting servers of their own.
RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes --no-install-recommends "${packages[@]}"
