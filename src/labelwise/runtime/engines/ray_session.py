"""Starting a quiet Ray on this machine, or joining one that runs."""

from __future__ import annotations

import math
import os
import secrets
import shutil
import socket
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from labelwise.runtime.engines.base import ClusterError
from labelwise.runtime.engines.ray_worker import import_ray

_LONGEST_TEMP = 40  # Ray puts sockets below it, and their paths may have 107 characters
_KNOCK_S = 20.0
_SETTINGS = ("RAY_USAGE_STATS_ENABLED", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "PYTHONBREAKPOINT")


class RaySession:
    """This process's connection to Ray, and the daemons of a Ray that it started.

    Args:
        address: None starts a Ray on this machine, which ends with ``close``, with this
            process or when the session is forgotten. "auto", "host:port" and "ray://..."
            join one that runs. A Ray that this process has joined already is used as it is.
        num_cpus: CPUs that a local start offers to workers; None for those of the machine.
        object_store_bytes: Shared memory of a local start, at least 78,643,200 bytes; what
            does not fit goes to temporary files.

    Attributes:
        is_local: Whether the daemons are started by this engine's process.

    Raises:
        ClusterError: No Ray answers at the address, or none can be started.
        MissingDependencyError: Ray is not installed.
    """

    def __init__(
        self, address: str | None, *, num_cpus: int | float | None, object_store_bytes: int
    ) -> None:
        ray = import_ray()
        self.is_local = False
        self._end: weakref.finalize[..., Any] | None = None
        if ray.is_initialized():
            return
        if address is None:
            temp = _make_temp()
            self._end = weakref.finalize(self, _stop, temp)
            self.is_local = True
            self._start(num_cpus, object_store_bytes, temp)
        else:
            _join(address)
            self._end = weakref.finalize(self, _stop, None)

    def close(self) -> None:
        """Leave Ray, and end it if it was started here; harmless when repeated."""
        if self._end is not None:
            self._end()

    def _start(
        self, num_cpus: int | float | None, object_store_bytes: int, temp: Path | None
    ) -> None:
        ray = import_ray()
        try:
            with _local_settings():
                ray.init(
                    address="local",
                    num_cpus=None if num_cpus is None else max(1, math.ceil(num_cpus)),
                    object_store_memory=object_store_bytes,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    _temp_dir=None if temp is None else str(temp),
                )
        except BaseException as error:
            self.close()
            if isinstance(error, Exception):
                raise ClusterError(
                    f"Ray cannot be started on this machine ({error}); run without Ray, or start "
                    "it by hand with 'ray start --head' and join it by its address"
                ) from error
            raise


def _join(address: str) -> None:
    ray = import_ray()
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        raise ClusterError(
            f"no Ray can be joined at {address!r} ({error}); start one with 'ray start --head', "
            "give its address as host:port, or give none to start Ray on this machine"
        ) from error


def _knock(address: str) -> None:
    """Raise an ``OSError`` if nothing listens there; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


def _stop(temp: Path | None) -> None:
    import_ray().shutdown()
    if temp is not None:
        shutil.rmtree(temp, ignore_errors=True)


def _make_temp() -> Path | None:
    """Return a folder that no other Ray uses; None, for Ray's own, if its path is too long."""
    if len(tempfile.gettempdir()) + len("/labelwise-ray-12345678") > _LONGEST_TEMP:
        return None
    return Path(tempfile.mkdtemp(prefix="labelwise-ray-"))


@contextmanager
def _local_settings() -> Iterator[None]:
    """Keep statistics, and the token that shuts others out, off the network and the home folder.

    Ray reads the settings as it starts and hands them to its daemons; the last two it sets.
    """
    before = {name: os.environ.get(name) for name in _SETTINGS}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if before["RAY_AUTH_TOKEN"] is None:
        os.environ["RAY_AUTH_TOKEN"] = _make_token()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@cache
def _make_token() -> str:
    """Return this process's token: Ray remembers the first one it reads."""
    return secrets.token_hex(32)
