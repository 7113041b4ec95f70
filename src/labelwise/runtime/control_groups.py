"""What control groups (containers, batch systems) allow the processes in them; Linux only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath


def iter_limits(controller: str, names: Mapping[str, str], proc: Path) -> Iterator[str]:
    """Yield what the files of this process's groups, and of those around them, say.

    Args:
        controller: Of version 1, for instance ``memory``.
        names: The file's name by version, ``cgroup`` and ``cgroup2``.
        proc: Where the kernel tells of this process.
    """
    try:
        groups = (proc / "cgroup").read_text().splitlines()
        mounts = (proc / "mountinfo").read_text().splitlines()
    except OSError:  # not Linux
        return
    paths: dict[str, str] = {}
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            paths["cgroup2"] = path
        elif controller in controllers.split(","):
            paths["cgroup"] = path
    for line in mounts:
        place, _, kind = line.partition(" - ")
        root, mount = place.split(" ")[3:5]
        version, _, options = kind.split(" ", 2)
        if version in paths and (version == "cgroup2" or controller in options.split(",")):
            yield from _read_upwards(paths[version], root, mount, names[version])


def _read_upwards(group: str, root: str, mount: str, name: str) -> Iterator[str]:
    """Yield the texts from a group up to the group ``root``, which is what is mounted.

    In a container the group is often not below what is mounted, which then is its own.
    """
    path, top = PurePosixPath(group), PurePosixPath(root)
    inner = path.relative_to(top) if path.is_relative_to(top) else PurePosixPath()
    for part in (inner, *inner.parents):
        with suppress(OSError):
            yield (Path(mount) / part / name).read_text().strip()
