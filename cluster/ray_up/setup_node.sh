#!/usr/bin/env bash
# Readies a machine of a cluster: the token, Python 3.11, tmux, what requirements.lock names, compiled kernels, the
# shell's settings. Runs again without harm.
#
# usage: setup_node.sh [cpu|cuda]   which build of torch; cpu is 0.2 GB, cuda 3 GB
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
  printf 'error: %s\n  why: %s\n  do:  %s\n' "$@" >&2
  exit 1
}

build=${1:-cpu}
[[ $build == cpu || $build == cuda ]] ||
  fail "there is no build '$build' of torch" "it is cpu or cuda" "call setup_node.sh with one of them"

# Without a token whoever reaches the machine could run code on it.
token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
[[ -s $token ]] || fail "this machine has no token" "$token is missing or empty" \
  "run 'ray get-auth-token --generate' where you type 'ray up'; it is copied from there"
chmod 600 "$token"

as_root() {
  if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

install_packages() {
  # A fresh machine of a cloud is still installing things of its own.
  if command -v cloud-init >/dev/null; then timeout 300 cloud-init status --wait >/dev/null || true; fi
  local wait=(-o "DPkg::Lock::Timeout=300") quiet=(env "DEBIAN_FRONTEND=noninteractive")
  as_root apt-get "${wait[@]}" update -qq
  if grep -qx 'ID=ubuntu' /etc/os-release; then # whose own 3.11 is none or a release candidate
    as_root "${quiet[@]}" apt-get "${wait[@]}" install -y -qq software-properties-common
    as_root add-apt-repository -y ppa:deadsnakes/ppa
  fi
  apt-cache show python3.11 >/dev/null 2>&1 || fail "Python 3.11 is not to be had here" \
    "Debian 12 has it, and Ubuntu by the deadsnakes archive; other releases have another Python" \
    "take a machine with one of them, or install Python 3.11 with venv by hand, and run 'ray up' again"
  as_root "${quiet[@]}" apt-get "${wait[@]}" install -y -qq make tmux python3.11 python3.11-venv
}

# tmux: `ray exec --tmux` starts a run in it on the head.
if ! { python3.11 -c 'import ensurepip' 2>/dev/null && command -v make && command -v tmux; } >/dev/null; then
  command -v apt-get >/dev/null || fail "Python 3.11 with venv, make or tmux is missing here" \
    "only Debian and Ubuntu are set up by this script" "install them, and run 'ray up' again"
  install_packages
fi

# The index of torch's own builds has the versions of the lock with +cpu behind them, which pip prefers.
if [[ $build == cpu ]]; then export PIP_EXTRA_INDEX_URL=${TORCH_CPU_INDEX-https://download.pytorch.org/whl/cpu}; fi
make --no-print-directory setup PYTHON=python3.11

# Ahead of what is there: Debian's .bashrc goes no further in shells that nobody types into, such as those of ssh.
settings="export PATH=$PWD/.venv/bin:\$PATH RAY_AUTH_MODE=token # tamen"
touch ~/.bashrc
{ echo "$settings"; sed '/ # tamen$/d' ~/.bashrc; } >~/.bashrc.new
mv ~/.bashrc.new ~/.bashrc
