"""What Linux's control groups leave to a process, of version 1 and 2, at every level.

Follows the kernel's Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst. A group's use counts the pages of
files that it has read: those are given up when memory is needed, so they count as free here.
"""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
# Version 1 says "no limit" by the largest multiple of a page; nothing has so much memory.
_NO_LIMIT = 1 << 60


def free_memory() -> list[int]:
    """The bytes that each group with a limit has left, the process's own group and all that hold it."""
    found = []
    for group, limit_name, used_name, prefix in _groups():
        limit, used = _number(group / limit_name), _number(group / used_name)
        if limit is not None and used is not None and limit < _NO_LIMIT:
            found.append(max(limit - used + _file_pages(group, prefix), 0))
    return found


def _groups() -> list[tuple[Path, str, str, str]]:
    """Folder, names of the files with limit and use, and what stands before the names in memory.stat."""
    version_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
    version_2 = ("memory.max", "memory.current", "")
    # In a container the mount's root may be the group itself, whatever /proc says.
    groups = {(_ROOT, *version_2), (_ROOT / "unified", *version_2), (_ROOT / "memory", *version_1)}
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        steps = [step for step in path.split("/") if step not in ("", "..")]
        for count in range(1, len(steps) + 1):
            below = Path(*steps[:count])
            if number == "0" and not controllers:
                groups |= {(_ROOT / below, *version_2), (_ROOT / "unified" / below, *version_2)}
            elif "memory" in controllers.split(","):
                groups.add((_ROOT / "memory" / below, *version_1))
    return sorted(groups)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None


def _file_pages(group: Path, prefix: str) -> int:
    names = {f"{prefix}inactive_file", f"{prefix}active_file"}
    total = 0
    try:
        for line in (group / "memory.stat").read_text().splitlines():
            name, _, size = line.partition(" ")
            total += int(size) if name in names else 0
    except (OSError, ValueError):
        return 0
    return total
