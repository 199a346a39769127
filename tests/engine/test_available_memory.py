"""legacy_style.engine.memory: how much memory there is, as Linux tells it."""

import ctypes
import os
import pathlib

import pytest

from legacy_style.engine import machine, memory

GIGA = 10**9


@pytest.fixture
def system(monkeypatch):
    """A system that says what the test puts into the dictionary: text by path."""
    told = {}

    def read_text(path, *args, **more):
        try:
            return told[str(path)]
        except KeyError:
            raise FileNotFoundError(path) from None

    monkeypatch.setattr(pathlib.Path, "read_text", read_text)
    monkeypatch.setattr(memory, "resident_memory", lambda: GIGA)
    return told


def meminfo(available):
    return (
        f"MemTotal:       99999999 kB\nMemFree:           1000 kB\nMemAvailable:   {available // 1024} kB\n"
    )


def test_a_process_may_grow_by_what_is_available(system):
    system["/proc/meminfo"] = meminfo(1024 * 4_000_000)
    assert memory.available_memory() == 1024 * 4_000_000 + GIGA


def test_several_processes_share_what_is_free(system):
    system["/proc/meminfo"] = meminfo(1024 * 4_000_000)
    assert memory.available_memory(4) == 1024 * 1_000_000 + GIGA


def test_a_control_group_may_allow_less(system):
    system["/proc/meminfo"] = meminfo(1024 * 40_000_000)
    system["/sys/fs/cgroup/memory.max"] = f"{8 * GIGA}\n"
    system["/sys/fs/cgroup/memory.current"] = f"{3 * GIGA}\n"
    assert memory.available_memory() == 5 * GIGA + GIGA
    assert memory.available_memory(5) == GIGA + GIGA


def test_a_control_group_may_have_no_limit_or_a_larger_one(system):
    system["/proc/meminfo"] = meminfo(1024 * 1_000_000)
    system["/sys/fs/cgroup/memory.current"] = f"{3 * GIGA}\n"
    for limit in ("max\n", f"{80 * GIGA}\n"):
        system["/sys/fs/cgroup/memory.max"] = limit
        assert memory.available_memory() == 1024 * 1_000_000 + GIGA


@pytest.mark.parametrize("group", ["", "/a", "/a/b.slice", "/a/b.slice/c"])
def test_a_limit_counts_at_any_level_of_version_2(system, group):
    system["/proc/meminfo"] = meminfo(1024 * 40_000_000)
    system["/proc/self/cgroup"] = "0::/a/b.slice/c\n"
    system[f"/sys/fs/cgroup{group}/memory.max"] = f"{8 * GIGA}\n"
    system[f"/sys/fs/cgroup{group}/memory.current"] = f"{3 * GIGA}\n"
    assert memory.available_memory() == 5 * GIGA + GIGA


@pytest.mark.parametrize("group", ["", "/docker", "/docker/1f"])
def test_a_limit_counts_at_any_level_of_version_1(system, group):
    system["/proc/meminfo"] = meminfo(1024 * 40_000_000)
    system["/proc/self/cgroup"] = "5:cpu,cpuacct:/x\n4:memory:/docker/1f\n0::/\n"
    system[f"/sys/fs/cgroup/memory{group}/memory.limit_in_bytes"] = f"{8 * GIGA}\n"
    system[f"/sys/fs/cgroup/memory{group}/memory.usage_in_bytes"] = f"{3 * GIGA}\n"
    system["/sys/fs/cgroup/memory/docker/memory.limit_in_bytes"] = system.get(
        "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "9223372036854771712\n"
    )
    assert memory.available_memory() == 5 * GIGA + GIGA


@pytest.mark.parametrize(
    ("folder", "limit", "used", "prefix"),
    [
        ("", "memory.max", "memory.current", ""),
        ("memory/", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ],
)
def test_pages_of_files_that_were_read_count_as_free(system, folder, limit, used, prefix):
    system["/proc/meminfo"] = meminfo(1024 * 40_000_000)
    system[f"/sys/fs/cgroup/{folder}{limit}"] = f"{8 * GIGA}\n"
    system[f"/sys/fs/cgroup/{folder}{used}"] = f"{7 * GIGA + 10}\n"
    system[f"/sys/fs/cgroup/{folder}memory.stat"] = (
        f"anon 5\n{prefix}inactive_file {4 * GIGA}\n{prefix}active_file {2 * GIGA}\nfile 99\n"
    )
    assert memory.available_memory() == 7 * GIGA - 10 + GIGA


def test_the_smallest_limit_counts_and_none_is_less_than_nothing(system):
    system["/proc/meminfo"] = meminfo(1024 * 40_000_000)
    system["/proc/self/cgroup"] = "0::/a/b\n"
    for group, limit in (("/a", 9), ("/a/b", 6)):
        system[f"/sys/fs/cgroup{group}/memory.max"] = f"{limit * GIGA}\n"
        system[f"/sys/fs/cgroup{group}/memory.current"] = f"{4 * GIGA}\n"
    assert memory.available_memory() == 2 * GIGA + GIGA
    system["/sys/fs/cgroup/a/b/memory.current"] = f"{7 * GIGA}\n"
    assert memory.available_memory() == GIGA


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="not Unix")
def test_pages_have_the_systems_size(monkeypatch):
    monkeypatch.setattr(pathlib.Path, "read_text", lambda path: "900 50 10 1 0 30 0\n")
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 65536}[name])
    assert memory.resident_memory() == 50 * 65536


def test_where_there_is_no_glibc_memory_is_left_as_it_is(monkeypatch):
    def no_library(name):
        raise TypeError("bad argument type for built-in operation")  # as on Windows

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    machine.keep_freed_memory()
    machine.spare_memory()
    machine.return_freed_memory()


def test_a_system_that_tells_nothing(system):
    assert memory.available_memory() is None
    system["/proc/meminfo"] = "MemTotal: 5 kB\n"
    assert memory.available_memory() is None


@pytest.mark.skipif(not pathlib.Path("/proc/meminfo").exists(), reason="not Linux")
def test_what_this_machine_tells_is_possible():
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    (total,) = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")]
    available = memory.available_memory()
    assert available is not None
    assert memory.resident_memory() <= available <= total + memory.resident_memory()
    held = bytearray(200_000_000)
    held[::1024] = b"\1" * len(held[::1024])
    assert 200_000_000 < memory.resident_memory() < total
