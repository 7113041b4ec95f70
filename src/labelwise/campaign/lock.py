"""One process on one campaign: a lock that names its holder and outlives no crash."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from labelwise.campaign.errors import LockedError
from labelwise.errors import WriteError
from labelwise.runtime.files import write_text

LOCK_FILE = "lock.json"
_GUARD_FILE = ".lock.guard"
_MOST_GUARDS = 1000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Holder:
    """Who has a campaign.

    Attributes:
        pid: Process number.
        host: Machine.
        user: Login name.
        started: When the lock was taken, ISO 8601, UTC.
        boot: The machine's boot id; empty where there is none.
        born: When the process began, in the kernel's clock ticks; tells a process from a
            later one of the same number. 0 where unknown.
        token: A word that no other holder has.
    """

    pid: int
    host: str
    user: str
    started: str
    boot: str
    born: int
    token: str

    def __str__(self) -> str:
        return f"{self.user}, process {self.pid} on {self.host}, since {self.started}"


@contextmanager
def campaign_lock(directory: Path, *, break_lock: bool = False) -> Iterator[Holder]:
    """Have a campaign for oneself.

    Args:
        directory: The campaign.
        break_lock: Take the lock even from a holder that may be alive. For a holder on
            another machine, of which nothing can be known, after it has surely ended.

    Yields:
        Who we are.

    Raises:
        LockedError: Another process has it; the message names the process.
        WriteError: The directory cannot be written to.
    """
    ours = _describe_self()
    path = directory / LOCK_FILE
    with _guard(directory):
        other = read_holder(directory)
        if other is not None and not break_lock and not is_stale(other):
            raise LockedError(
                f"{directory} is in use by {other}. Wait for it, or end it; if that machine "
                "is gone for sure, run again with --break-lock"
            )
        write_text(path, json.dumps(asdict(ours), indent=1) + "\n")
    try:
        yield ours
    finally:
        with _guard(directory):
            if read_holder(directory) == ours:
                with suppress(OSError):
                    path.unlink()


@contextmanager
def temporary_lock(folder: Path, *, break_lock: bool = False) -> Iterator[Holder]:
    """Have a folder for oneself that is there only as long as something is in it.

    Args:
        folder: It is made if there is none, and removed if nothing is in it in the end.
        break_lock: See ``campaign_lock``.

    Yields:
        Who we are.

    Raises:
        LockedError: Another process has it; the message names the process.
        WriteError: It cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make {folder}: {error.strerror or error}") from error
    try:
        with campaign_lock(folder, break_lock=break_lock) as ours:
            yield ours
    finally:
        with suppress(OSError, WriteError), _guard(folder):
            if [path.name for path in folder.iterdir()] == [_GUARD_FILE]:
                (folder / _GUARD_FILE).unlink()
                folder.rmdir()


def read_holder(directory: Path) -> Holder | None:
    """Return who has a campaign by its lock file, or None.

    Raises:
        LockedError: The lock file is not one of ours.
    """
    path = directory / LOCK_FILE
    try:
        return Holder(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise LockedError(f"{path} cannot be read ({error}); remove it if nothing runs") from error


def is_stale(holder: Holder) -> bool:
    """Return whether a holder is surely dead: same machine, and its process is gone.

    A machine that was started anew since has another boot id; a process number that was
    given to another process shows in the time of its beginning.
    """
    ours = _describe_self()
    if holder.host != ours.host:
        return False
    if holder.boot and ours.boot and holder.boot != ours.boot:
        return True
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    state, born = _look_at(holder.pid)
    # A zombie holds no files: it is dead, and only its parent has not noticed.
    return state == "Z" or bool(holder.born and born and born != holder.born)


def _describe_self() -> Holder:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without a passwd entry
        user = str(os.getuid())
    return Holder(
        pid=os.getpid(),
        host=socket.gethostname(),
        user=user,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        boot=_BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "",
        born=_look_at(os.getpid())[1],
        token=secrets.token_hex(8),
    )


def _look_at(pid: int) -> tuple[str, int]:
    """Return a process's state letter and the clock tick of its beginning; '', 0 if unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", 0
    # The name, in brackets, may hold blanks; the 20th field behind it is the start time.
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


@contextmanager
def _guard(directory: Path) -> Iterator[None]:
    """Let one process at a time look at the lock and change it."""
    handle = _open_guard(directory)
    try:
        yield
    finally:
        os.close(handle)


def _open_guard(directory: Path) -> int:
    """Open and lock the guard; whoever had it may have removed it meanwhile, then once more."""
    path = directory / _GUARD_FILE
    for _ in range(_MOST_GUARDS):
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise WriteError(f"cannot write to {directory}: {error.strerror or error}") from error
        # Some network file systems have no such lock; then the look is not guarded.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)
    raise WriteError(f"{path} changes all the time: cannot lock {directory}")
