"""JAX's cache of compiled programs: entries that were cut off or changed are made anew, once."""

import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from unlearn_jax.system import compiled

ROOT = Path(__file__).parents[1]
_PROGRAM = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from unlearn_jax.system import compiled
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
compiled.keep_in(Path(sys.argv[1]))
hits = []
jax.monitoring.register_event_listener(
    lambda name, **_: hits.append(name) if name.endswith(("cache_hits", "cache_misses")) else None)
print(jax.jit(lambda x: jnp.sin(x).sum())(jnp.arange(3.0)), *(h.split("_")[-1] for h in hits))
"""


def program(directory):
    """What it prints and says."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}
    done = subprocess.run([sys.executable, "-c", _PROGRAM, directory], cwd=ROOT, env=env,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def test_a_damaged_entry_is_told_of_once_and_made_anew(tmp_path):
    (answer, *events), _ = program(tmp_path)
    assert set(events) == {"misses"}
    whole = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert whole and all(compiled.content(stored) for stored in whole.values())
    (again, *events), said = program(tmp_path)
    assert again == answer and set(events) == {"hits"} and "damaged" not in said
    for name, stored in whole.items():
        changed = bytearray(stored)
        changed[len(stored) // 2] ^= 4
        (tmp_path / name).write_bytes(changed)
    (again, *events), said = program(tmp_path)
    assert again == answer and set(events) == {"misses"}
    assert said.count("is damaged; the program is compiled again") == len(whole)
    assert "Error reading" not in said
    (again, *events), said = program(tmp_path)
    assert again == answer and set(events) == {"hits"} and "damaged" not in said


def test_any_changed_byte_is_seen_or_changes_nothing():
    value = zlib.compress(bytes(range(200)))
    stored = value + b"unlearn_jax" + compiled._hash(value)
    assert compiled.content(stored) == value
    for i in range(len(stored)):
        changed = bytearray(stored)
        changed[i] ^= 1 << i % 8
        found = compiled.content(bytes(changed))
        assert found is None or zlib.decompress(found) == bytes(range(200))
    assert compiled.content(stored[:50]) is None


@pytest.mark.parametrize("change, kept", [(lambda b: b, True), (lambda b: b[:-3], False),
                                          (lambda b: b[:9] + b"x" + b[10:], False)])
def test_entries_without_a_digest_are_checked_by_what_compressed_them(change, kept):
    stored = change(zlib.compress(bytes(range(200))))
    assert compiled.content(stored) == (stored if kept else None)
