"""A temporary file is abandoned when its process is gone, and not before."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from fxtrt.files.temporary_file import (
    _began,
    _machine,
    is_abandoned,
    is_temporary,
    temporary_name,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for processes")
DAY = 24 * 3600


def name(machine: str, pid: int, began: int) -> str:
    return f".fxtrt-{machine}-{pid}-{began}-{'0' * 16}.tmp"


def test_a_name_is_known_again_and_no_other() -> None:
    one, other = temporary_name(), temporary_name()
    assert one != other
    assert is_temporary(one)
    for foreign in (".env", ".keep", "tmp.tmp", ".fxtrt-1.tmp", f"{one}~", f"x{one}", one[:-1]):
        assert not is_temporary(foreign)
        assert not is_abandoned(foreign, 0.0)


def test_a_file_of_this_process_is_never_abandoned() -> None:
    assert not is_abandoned(temporary_name(), time.time())


@linux
def test_a_file_is_abandoned_as_soon_as_its_process_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        began = _began(process.pid)
        assert began is not None
        written = name(_machine(), process.pid, began)
        assert not is_abandoned(written, 0.0)
        assert is_abandoned(name(_machine(), process.pid, began - 1), time.time())  # its number
        process.kill()
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        assert is_abandoned(written, time.time())  # a zombie writes nothing
    assert is_abandoned(written, time.time())


@pytest.mark.parametrize("machine", ["f" * 16, "0" * 16])
def test_a_file_of_another_machine_is_abandoned_after_a_day(machine: str) -> None:
    written = name(machine, 1, 1)
    assert not is_abandoned(written, time.time() - DAY + 60)
    assert is_abandoned(written, time.time() - DAY - 60)
