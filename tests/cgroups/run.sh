#!/usr/bin/env bash
# Runs the tests of limits where the kernel hands out control groups (version 2) with all their
# controllers: in a virtual machine with Debian's kernel and this machine's own files, for machines
# whose own groups are taken. It needs root, Debian's packages and no virtualisation by the processor.
#   run.sh TEST-BINARY [FILTER …]
set -euo pipefail
tests=$(realpath "$1"); shift
here=$(cd "$(dirname "$0")" && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/conductor/cgroups"
mkdir -p "$cache"

missing=()
command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
command -v busybox >/dev/null || missing+=(busybox-static)
command -v depmod >/dev/null || missing+=(kmod)
command -v bwrap >/dev/null || missing+=(bubblewrap)
if [ "${#missing[@]}" -gt 0 ]; then
  echo "missing: apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 1
fi
if [ ! -d "$cache/virtme" ]; then
  python3 -m pip install --quiet --no-deps --require-hashes --target "$cache/virtme" \
    --requirement "$here/requirements.txt"
fi
if ! compgen -G "$cache/kernel/boot/vmlinuz-*" >/dev/null; then
  package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-[0-9]/ {print $2; exit}')
  fetched=$(mktemp -d)
  (cd "$fetched" && apt-get download --quiet "$package")
  dpkg-deb --extract "$fetched"/*.deb "$cache/kernel"
  rm -r "$fetched"
fi
image=$(compgen -G "$cache/kernel/boot/vmlinuz-*" | head -n 1)
depmod --basedir "$cache/kernel" "${image##*/vmlinuz-}"

work=$(mktemp -d "$cache/run-XXXXXX")
trap 'rm -rf "$work"' EXIT
{
  echo '#!/bin/bash'
  echo "export TMPDIR=/dev/shm CONDUCTOR_TEST_CGROUPS=1"
  # A file system in memory of its own: the shared one is slow, and holds no sockets for others.
  echo "cd $(printf %q "$(dirname "$tests")")"
  printf '%q ' "$tests" --nocapture --test-threads 1 "$@"
  echo "> $work/said 2>&1"
  echo "echo \$? > $work/status"
} > "$work/guest.sh"
chmod +x "$work/guest.sh"
echo "==> $(basename "$image"), without acceleration: a few minutes"
(sleep 0.1; touch "$work/said"; exec tail --follow --lines +1 --pid $$ "$work/said") &
PYTHONPATH="$cache/virtme" timeout 1800 python3 "$cache/virtme/bin/virtme-run" --disable-kvm \
  --kimg "$image" --mods=auto --rw --memory 4G --cpus 2 --script-sh "$work/guest.sh" \
  </dev/null >"$work/console" 2>&1 || true
sleep 1
kill %1 2>/dev/null || true
if [ ! -s "$work/status" ]; then
  tail -n 30 "$work/console" >&2
  echo "the machine did not come so far" >&2
  exit 1
fi
exit "$(cat "$work/status")"
