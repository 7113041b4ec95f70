"""Starting a worker process: a copy of this one where that is safe, else a program of its own.

A copy (``fork``) is there in milliseconds, with all libraries imported; a program of its own needs
about five seconds of a core for them. Copies are what torch's ``DataLoader`` makes on Linux, under
the same conditions: one thread each, and no CUDA context.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

from labelwise.runtime.engines.process_worker import serve

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_forbidden = False  # see ``forbid_copies``


@runtime_checkable
class WorkerProcess(Protocol):
    """A process that takes orders on ``stdin`` and answers on ``stdout``."""

    stdin: IO[bytes]
    stdout: IO[bytes]

    def kill(self) -> None:
        """End it at once; harmless when repeated."""

    def wait(self) -> int:
        """Wait for its end and return the exit code, -n where signal n ended it."""


def start_process(n_threads: int) -> WorkerProcess:
    """Start a worker process that finds the modules that this one finds.

    Args:
        n_threads: Threads that it computes with.
    """
    if n_threads == 1 and _can_fork():
        with suppress(OSError):  # no memory for a copy, or too many processes
            return _ForkedProcess()
    return _start_program(n_threads)


def forbid_copies() -> None:
    """Let workers be programs of their own from now on; for libraries that break in copies.

    A library that computes with threads of its own, as JAX does, waits in a copy for threads
    that are not there.
    """
    global _forbidden
    _forbidden = True


def expected_start_s(n_threads: int) -> float:
    """Return the seconds until a worker that is started now can compute, about."""
    return 0.5 if n_threads == 1 and _can_fork() else 5.0


def _can_fork() -> bool:
    """Whether a copy of this process can compute: OpenMP and accelerators do not survive in one.

    Where torch sees an accelerator, its first backward pass starts a thread for that device, even
    on the CPU, and refuses to work in a copy.
    """
    torch = sys.modules.get("torch")
    has_accelerator = torch and torch.accelerator.is_available()
    return sys.platform == "linux" and not (has_accelerator or _forbidden)


def _start_program(n_threads: int) -> WorkerProcess:
    folders = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
    threads = dict.fromkeys(_THREAD_VARIABLES, str(n_threads))
    program = "from labelwise.runtime.engines.process_start import serve_program; serve_program()"
    process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603  # our own program
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **threads, "PYTHONPATH": folders},
    )
    return process  # type: ignore[return-value]  # started with pipes


def serve_program() -> None:
    """Serve on standard input and output: the whole program of a worker."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else is printed must not come between the answers
    serve(sys.stdin.buffer, answers)


class _ForkedProcess:
    """A copy of this process, which serves until its input ends."""

    def __init__(self) -> None:
        orders_in, orders_out = os.pipe()
        answers_in, answers_out = os.pipe()
        # A signal that came to the copy here would be handled by the code that was copied.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of threads beside a fork
                self._pid = os.fork()
                if self._pid == 0:
                    _serve_forked(orders_in, answers_out, before)
        except OSError:
            for end in (orders_out, answers_in):
                os.close(end)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            for end in (orders_in, answers_out):
                os.close(end)
        self.stdin: IO[bytes] = os.fdopen(orders_out, "wb")
        self.stdout: IO[bytes] = os.fdopen(answers_in, "rb")
        self._code: int | None = None

    def kill(self) -> None:
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> int:
        if self._code is None:
            try:
                self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
            except ChildProcessError:  # somebody else has waited for it
                self._code = -signal.SIGKILL
        return self._code


def _serve_forked(orders: int, answers: int, signals: set[Any]) -> None:
    """Serve in a copy of a process, which never returns from here.

    Files of the process that was copied are closed, since they may be locks, and the end of
    pipes is how other workers learn that it has ended.
    """
    code = 1
    try:
        gc.freeze()  # objects of the other process are left alone, with the files they name
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))  # for what is imported later
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)  # what is printed must not come between that process's own output
        for file in list(Path("/proc/self/fd").iterdir()):
            if int(file.name) > 2 and int(file.name) not in (orders, answers):
                with suppress(OSError):
                    os.close(int(file.name))
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_num_threads(1)  # before anything is computed: OpenMP's threads are not here
        serve(os.fdopen(orders, "rb"), os.fdopen(answers, "wb"))
        code = 0
    finally:
        os._exit(code)
