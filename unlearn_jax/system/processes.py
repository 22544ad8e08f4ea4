"""Several processes, one program: how they meet, agree, wait, and end together.

Every process runs the same code on the same data and hands its own devices their part of the work,
in the same order as all others. What only one may do (write a file, hold a lock) or may answer
differently (read a clock, look at a directory) process 0 does alone, in `agreed`; the others wait
for what it found. Arrays over several processes are in `arrays.py`. In a single process all of
this is what one would write without it.

A process that fails says so, and the others end at once with its message. One that dies without a
word is missed by its heartbeats; one that is alive but never comes is waited for `timeout` seconds.
"""

import atexit
import contextlib
import dataclasses
import ipaddress
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from absl import logging

from unlearn_jax.errors import ConfigError, InputError
from unlearn_jax.system.nested import differing

T = TypeVar("T")

TIMEOUT = 86400.0  # seconds; process 0 may wait long for a model that another run is training
_MEETING = 300.0  # seconds, at most, until all have started
_HEARTBEAT = 300  # seconds without a sign of life; a launcher notices a death long before
_POLL = 0.5  # seconds between two looks at whether another process has failed
# Seconds that process 0 stays after a failure: the others ask it, and JAX aborts them without it.
_LINGER = 3.0
_FAILED = "unlearn_jax/failed"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a process stands among those of its program.

    Attributes:
      coordinator: HOST:PORT of process 0, as the others reach it.
      count: processes, at least one.
      index: of this one, from zero.
      gpus: which of the GPUs that it sees are its own; None: all.
    """

    coordinator: str
    count: int
    index: int
    gpus: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError(f"--coordinator is {self.coordinator!r}; allowed: HOST:PORT of "
                              "process 0")
        if self.count < 1:
            raise ConfigError(f"--processes is {self.count}; allowed: at least 1")
        if not 0 <= self.index < self.count:
            raise ConfigError(f"--process_id is {self.index}; allowed: from 0 to {self.count - 1}, "
                              "a different one for each process")


class _Group:
    """The processes of this program, seen from one of them; asks JAX' coordination service.

    The service's client has no public name; Orbax uses the same one.
    """

    def __init__(self, place: Place, timeout: float):
        from jax._src.distributed import global_state

        assert global_state.client is not None, "jax.distributed is initialized before"
        self.client, self.place, self.timeout = global_state.client, place, timeout
        self.calls, self.alone = 0, False
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._watch_others, daemon=True)
        self._watch.start()

    def name(self, what: str) -> str:
        """Of the next call; all processes make the same calls in the same order."""
        self.calls += 1
        return f"unlearn_jax/{self.calls}/{what}"

    def wait(self, what: str) -> None:
        try:
            self.client.wait_at_barrier(self.name(what), round(self.timeout * 1000))
        except RuntimeError as e:
            raise self._late(what, "some process has not come", e) from e

    def say(self, what: str, text: str) -> None:
        self.client.key_value_set(self.name(what), text)

    def hear(self, what: str) -> str:
        try:
            return self.client.blocking_key_value_get(self.name(what), round(self.timeout * 1000))
        except RuntimeError as e:
            raise self._late(what, "process 0 has not answered", e) from e

    def _late(self, what: str, text: str, error: Exception) -> InputError:
        return InputError(f"process {self.place.index} of {self.place.count} waited at {what!r}: "
                          f"{text} within --process_timeout={self.timeout:g} seconds, or is gone "
                          f"({str(error).splitlines()[0][:300]})")

    def fail(self, error: BaseException) -> int:
        """Tells the others of an error that ends this process; returns its exit code."""
        self._stop.set()
        said, code = str(error) or type(error).__name__, 1
        if isinstance(error, SystemExit) and isinstance(error.code, int):
            said, code = f"it exits with code {error.code}", error.code
        try:
            self.client.key_value_set(_FAILED, json.dumps([self.place.index, said, code]))
        except RuntimeError as e:  # another failed first, or the service is gone
            logging.info("the other processes were not told: %s", str(e).splitlines()[0])
        stays = _LINGER
        try:
            # Those who all leave for one reason leave together: who is early would have a launcher
            # end the others, with another exit code.
            self.client.wait_at_barrier("unlearn_jax/leaving", round(_LINGER / 2 * 1000))
            stays = 0.1
        except RuntimeError as e:
            logging.info("the other processes go on or are gone: %s", str(e).splitlines()[0])
        if self.place.index == 0:
            time.sleep(stays)
        return code

    def close(self) -> None:
        self.wait("the end")
        self._stop.set()
        self._watch.join()

    def _watch_others(self) -> None:
        while not self._stop.wait(_POLL):
            try:
                index, said, code = json.loads(self.client.key_value_try_get(_FAILED))
            except RuntimeError:  # nobody has failed
                continue
            if self._stop.is_set():
                return
            try:
                print(f"unlearn_jax: process {self.place.index} ends, as process {index} ended: "
                      f"{said}", file=sys.stderr, flush=True)
                if self.place.index == 0:
                    time.sleep(_LINGER)
            finally:
                # The main thread may be waiting inside a program that will never end.
                os._exit(code)


def _leave(code: int) -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


_group: _Group | None = None


@contextlib.contextmanager
def joined(place: Place | None, timeout: float = TIMEOUT) -> Iterator[None]:
    """Runs a block in all processes of a program; what ends one ends all.

    To be entered before jax looks for devices.

    Args:
      place: of this process; None, or one of a single process: nothing happens.
      timeout: seconds to wait for others, here and at every later meeting.

    Raises:
      InputError: the others cannot be reached, or will not be.
    """
    global _group
    if place is None or place.count == 1:
        yield
        return
    import jax  # the store, which asks this module, is used without
    # It would swallow SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)
    seconds = round(min(timeout, _MEETING))
    inside = place.coordinator.startswith("localhost:")  # nobody else needs to reach it
    # Where nobody answers in time, JAX ends the process itself, with many lines.
    logging.info("process %d of %d: meeting the others at %s within %d seconds", place.index,
                 place.count, place.coordinator, seconds)
    try:
        jax.distributed.initialize(
            place.coordinator, place.count, place.index,
            local_device_ids=list(place.gpus) if place.gpus else None,
            cluster_detection_method="deactivate", initialization_timeout=seconds,
            coordinator_bind_address=place.coordinator if inside else None,
            heartbeat_timeout_seconds=_HEARTBEAT)
    except (RuntimeError, ValueError) as e:
        raise InputError(f"process {place.index} of {place.count} cannot meet the others at "
                         f"{place.coordinator}: {str(e).splitlines()[0]}") from e
    _group = _Group(place, timeout)
    try:
        if jax.default_backend() == "cpu":
            _check_addresses()
        yield
        _group.close()
    except BaseException as e:
        code = _group.fail(e)
        # What JAX has for the end of a process waits for the others, and then aborts.
        atexit.register(_leave, code)
        raise
    finally:
        _group = None
    jax.distributed.shutdown()


def _check_addresses() -> None:
    """On CPUs hosts exchange arrays by the addresses that each of them has for its own name."""
    name = socket.gethostname()
    try:
        address = socket.getaddrinfo(name, None)[0][4][0]
    except OSError:
        address = "127.0.0.1"
    everyone = _everyone("addresses", [name, address])
    for host, own in everyone:
        if ipaddress.ip_address(own.partition("%")[0]).is_loopback and any(
                other != host for other, _ in everyone):
            raise InputError(
                f"the host {host} has the address {own} for itself, where the others do not reach "
                "it; on CPUs it must know the one that it has in their network (a line of its "
                f"/etc/hosts: that address, then {host})")


def count() -> int:
    """Processes of this program."""
    return _group.place.count if _group else 1


def leads() -> bool:
    """Whether this is process 0, which writes; a single process is."""
    return _group is None or _group.place.index == 0


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, nothing waits for other processes: for what process 0 does without them."""
    if _group is None or _group.alone:
        yield
        return
    _group.alone = True
    try:
        yield
    finally:
        _group.alone = False


def agreed(what: str, find: Callable[[], T]) -> T:
    """What process 0 finds; only there `find` is called, and the others wait.

    Args:
      what: a name for messages, the same in all processes.
      find: returns what JSON can hold. It may write files and take its time.
    """
    if _group is None or _group.alone:
        return find()
    if not leads():
        return json.loads(_group.hear(what))
    with alone():
        found = find()
    _group.say(what, json.dumps(found))
    return found


def lowest(what: str, value: float) -> float:
    """The lowest of the values that the processes have."""
    return min(_everyone(what, value))


def require_same(what: str, value: Any, hint: str = "") -> None:
    """Refuses to go on where processes differ in something that decides their numbers.

    Args:
      what: a name for messages.
      value: of this process; what JSON can hold.
      hint: ends the message.

    Raises:
      InputError: names both values, or their first difference.
    """
    if _group is None:
        return
    own = json.loads(json.dumps(value))
    for index, other in enumerate(_everyone(what, value)):
        if found := next(differing(own, other), None):
            key, mine, theirs = found
            raise InputError(
                f"processes differ in {what}{f', {key}' if key else ''}: "
                f"process {_group.place.index} has {repr(mine)[:200]}, "
                f"process {index} {repr(theirs)[:200]}{hint}")


def wait(what: str) -> None:
    """Until all processes are here."""
    if _group is not None and not _group.alone:
        _group.wait(what)


def _everyone(what: str, value: Any) -> list[Any]:
    """The value of every process, as JSON holds it."""
    if _group is None or _group.alone:
        return [json.loads(json.dumps(value))]
    name = _group.name(what)
    _group.client.key_value_set(f"{name}/{_group.place.index:06d}", json.dumps(value))
    _group.wait(what)
    return [json.loads(text) for _, text in sorted(_group.client.key_value_dir_get(name))]
