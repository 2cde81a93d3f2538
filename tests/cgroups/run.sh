#!/usr/bin/env bash
# Runs the tests of limits where the kernel hands out control groups (version 2) with all their
# controllers: in a virtual machine with Debian's kernel and this machine's own files, for machines
# whose own groups are taken. It needs root and Debian's packages, and no help of the processor.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=tests/cgroups
pinned=$(sha256sum "$here/requirements.txt" | cut -c 1-12)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/conductor/cgroups-$pinned"
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

echo "==> building the tests"
built=$(cargo test --locked --workspace --test e2e --no-run --message-format json-render-diagnostics)
tests=$(python3 -c 'import json, sys
built = (json.loads(line) for line in sys.stdin)
print([e["executable"] for e in built if e.get("target", {}).get("name") == "e2e" and e.get("executable")][0])
' <<<"$built")

# Made under another name first: what is cut off half-way is not taken for whole.
if [ ! -d "$cache/virtme" ]; then
  rm -rf "$cache/virtme.part"
  python3 -m pip install --quiet --no-deps --require-hashes --target "$cache/virtme.part" \
    --requirement "$here/requirements.txt"
  mv "$cache/virtme.part" "$cache/virtme"
fi
if [ ! -d "$cache/kernel" ]; then
  rm -rf "$cache/kernel.part" "$cache/fetched"
  mkdir "$cache/fetched"
  package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-[0-9]/ {print $2; exit}')
  (cd "$cache/fetched" && apt-get download --quiet "$package")
  dpkg-deb --extract "$cache/fetched"/*.deb "$cache/kernel.part"
  mv "$cache/kernel.part" "$cache/kernel"
fi
image=$(compgen -G "$cache/kernel/boot/vmlinuz-*" | head -n 1)
depmod --basedir "$cache/kernel" "${image##*/vmlinuz-}"

work=$(mktemp -d "$cache/run-XXXXXX")
trap 'rm -rf "$work"' EXIT
# A file system in memory of its own: the shared one is slow.
cat > "$work/guest.sh" <<GUEST
#!/bin/bash
export TMPDIR=/dev/shm CONDUCTOR_TEST_CGROUPS=1
cd $(printf %q "$(dirname "$tests")")
$(printf %q "$tests") sandbox::limits --nocapture --test-threads 1 > $(printf %q "$work/said") 2>&1
echo \$? > $(printf %q "$work/status")
GUEST
chmod +x "$work/guest.sh"
echo "==> $(basename "$image"), without acceleration: a few minutes"
touch "$work/said"
tail --follow --lines +1 --pid $$ "$work/said" &
timeout 1800 env PYTHONPATH="$cache/virtme" python3 "$cache/virtme/bin/virtme-run" --disable-kvm \
  --kimg "$image" --mods=auto --rw --memory 4G --cpus 2 --script-sh "$work/guest.sh" \
  </dev/null >"$work/console" 2>&1 || true
sleep 1
if [ ! -s "$work/status" ]; then
  tail -n 30 "$work/console" >&2
  echo "the machine did not come so far" >&2
  exit 1
fi
if ! grep -q '^test result: ok. [1-9]' "$work/said"; then
  echo "no test has passed" >&2
  exit 1
fi
exit "$(cat "$work/status")"
