#!/usr/bin/env bash
# Installs the programs of other people that the end-to-end tests talk to: the list is below.
# Does nothing where all of them are there. Needs root on Debian or a system like it; elsewhere it says what to install.
set -euo pipefail

# Program, and Debian's package that has it.
declare -A packages=(
  [chromium]=chromium
  [curl]=curl
  [dpkg-deb]=dpkg
  [git]=git
  [nc]=netcat-openbsd
  [nginx]=nginx
  [node]=nodejs
  [npm]=npm
  [pip3]=python3-pip
  [ssh]=openssh-client
  [sshd]=openssh-server
)

missing=()
for program in "${!packages[@]}"; do
  # Debian puts nginx where only root looks.
  PATH="$PATH:/usr/sbin:/sbin" command -v "$program" > /dev/null || missing+=("${packages[$program]}")
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
