"""Two simulated hosts: network namespaces with their own names and addresses."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("nodea", "nodeb")
ADDRESSES = ("10.213.77.1", "10.213.77.2")
_FILES = Path("/etc/netns")


@contextlib.contextmanager
def two_hosts():
    """Yields the namespaces, each with its address in the common network."""
    missing = [p for p in ("ip", "unshare") if not shutil.which(p)]
    if missing or os.geteuid():
        pytest.skip(f"no two hosts to try: no {missing[0]} (apt-get install iproute2)" if missing
                    else "only root can make two hosts to try")
    spaces = [f"{name}-{os.getpid()}" for name in NAMES]
    with contextlib.ExitStack() as stack:
        for space in spaces:
            stack.callback(shutil.rmtree, _FILES / space, ignore_errors=True)
            stack.callback(subprocess.run, ["ip", "netns", "del", space], capture_output=True)
            made = subprocess.run(["ip", "netns", "add", space], capture_output=True, text=True)
            if made.returncode:
                pytest.skip(f"no two hosts to try: {made.stderr.strip()}")
        _ip("link", "add", "ea", "netns", spaces[0], "type", "veth", "peer", "name", "eb", "netns",
            spaces[1])
        for space, end, address in zip(spaces, ("ea", "eb"), ADDRESSES):
            _ip("-n", space, "addr", "add", f"{address}/24", "dev", end)
            for device in (end, "lo"):
                _ip("-n", space, "link", "set", device, "up")
            (_FILES / space).mkdir(parents=True)
        name_hosts(spaces, ADDRESSES)
        yield spaces


def name_hosts(spaces, own):
    """Sets the address that each host has for its own name; the other host's name is correct."""
    for i, space in enumerate(spaces):
        (_FILES / space / "hosts").write_text(
            f"127.0.0.1 localhost\n{own[i]} {NAMES[i]}\n{ADDRESSES[1 - i]} {NAMES[1 - i]}\n")


def on_host(spaces, index, command):
    """The command that runs another one on a host."""
    return ["ip", "netns", "exec", spaces[index], "unshare", "--uts", "sh", "-c",
            f'hostname {NAMES[index]} && exec "$@"', "sh", *command]


def _ip(*words):
    subprocess.run(["ip", *words], check=True)
