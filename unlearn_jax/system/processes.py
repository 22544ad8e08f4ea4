"""Several processes, one program: how they meet, agree, wait, and end together.

Every process runs the same code on the same data and gives its own devices their part of the work,
in the same order as all others. Process 0 alone does what only one process may do (write a file,
hold a lock) and what may differ between processes (read a clock, look at a directory): see
`on_first_process`. The others wait for its result. `arrays.py` handles arrays over several
processes. In a single process, none of this has an effect.

A process that fails reports it, and the others end at once with its message. A process that dies
without a report is noticed by its missing heartbeats. The others wait `timeout` seconds for one
that is alive but does not come.
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
_MEETING = 300.0  # seconds, at most, until all processes have started
_HEARTBEAT = 300  # seconds without a sign of life; a launcher notices a death long before
_POLL = 0.5  # seconds between two checks for the failure of another process
# Seconds that process 0 stays after a failure: JAX aborts processes that cannot reach it.
_LINGER = 3.0
_FAILED = "unlearn_jax/failed"


@dataclasses.dataclass(frozen=True)
class Place:
    """The place of a process among those of its program.

    Attributes:
      coordinator: HOST:PORT where the others reach process 0.
      count: number of processes, at least one.
      index: number of this process, from zero.
      gpus: the visible GPUs that this process uses; None: all.
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
    """The processes of this program, from the view of one; uses JAX' coordination service.

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
        """The name of the next call; all processes make the same calls in the same order."""
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
        """Reports an error that ends this process to the others; returns its exit code."""
        self._stop.set()
        said, code = str(error) or type(error).__name__, 1
        if isinstance(error, SystemExit) and isinstance(error.code, int):
            said, code = f"it exits with code {error.code}", error.code
        try:
            self.client.key_value_set(_FAILED, json.dumps([self.place.index, said, code]))
        except RuntimeError as e:  # another process failed first, or the service is gone
            logging.info("the other processes were not told: %s", str(e).splitlines()[0])
        stays = _LINGER
        try:
            # Processes that end for one reason end together: after an early end, a launcher would
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
            except RuntimeError:  # no process has failed
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
    """Runs a block in all processes of a program; an error in one ends all.

    The block must begin before jax looks for devices.

    Args:
      place: place of this process; None, or a single process: nothing happens.
      timeout: seconds to wait for others, here and at every later meeting.

    Raises:
      InputError: the others cannot be reached, or their addresses are unusable.
    """
    global _group
    if place is None or place.count == 1:
        yield
        return
    import jax  # not above: the store uses this module without jax
    # This service would consume SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)
    seconds = round(min(timeout, _MEETING))
    inside = place.coordinator.startswith("localhost:")  # no other host needs to reach it
    # If there is no answer in time, JAX itself ends the process, with many lines.
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
        # JAX's own exit handler waits for the other processes, and then aborts.
        atexit.register(_leave, code)
        raise
    finally:
        _group = None
    jax.distributed.shutdown()


def _check_addresses() -> None:
    """Checks the address of this host's own name, by which hosts exchange arrays on CPUs."""
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
    """Number of processes of this program."""
    return _group.place.count if _group else 1


def is_first_process() -> bool:
    """Whether this is process 0, which writes; true for a single process."""
    return _group is None or _group.place.index == 0


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, nothing waits for other processes; for work of process 0 alone."""
    if _group is None or _group.alone:
        yield
        return
    _group.alone = True
    try:
        yield
    finally:
        _group.alone = False


def on_first_process(what: str, find: Callable[[], T]) -> T:
    """The result of `find`, called in process 0 alone, in all processes; the others wait.

    Args:
      what: a name for messages, the same in all processes.
      find: returns a JSON value. It may write files and take long.
    """
    if _group is None or _group.alone:
        return find()
    if not is_first_process():
        return json.loads(_group.hear(what))
    with alone():
        found = find()
    _group.say(what, json.dumps(found))
    return found


def lowest(what: str, value: float) -> float:
    """The lowest of all processes' values."""
    return min(_everyone(what, value))


def require_same(what: str, value: Any, hint: str = "") -> None:
    """Raises an error if processes differ in a value that their results depend on.

    Args:
      what: a name for messages.
      value: this process's JSON value.
      hint: end of the message.

    Raises:
      InputError: the message names both values, or their first difference.
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
    """Waits until all processes have made this call."""
    if _group is not None and not _group.alone:
        _group.wait(what)


def _everyone(what: str, value: Any) -> list[Any]:
    """The JSON values of all processes."""
    if _group is None or _group.alone:
        return [json.loads(json.dumps(value))]
    name = _group.name(what)
    _group.client.key_value_set(f"{name}/{_group.place.index:06d}", json.dumps(value))
    _group.wait(what)
    return [json.loads(text) for _, text in sorted(_group.client.key_value_dir_get(name))]
