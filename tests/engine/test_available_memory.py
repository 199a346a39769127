"""legacy_style.engine.memory: how much memory there is, as Linux tells it."""

import pathlib

import pytest

from legacy_style.engine import memory

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
