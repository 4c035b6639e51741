"""Name temporary files after the process that writes them, and detect when it has ended."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import time
from pathlib import Path

__all__ = ["is_abandoned", "is_temporary", "temporary_name"]

_NAME = re.compile(r"\.fxtrt-([0-9a-f]{16})-([0-9]{1,10})-([0-9]{1,20})-[0-9a-f]{16}\.tmp")
"""The machine, the process, when the process began, and a random number."""
_UNKNOWN = "0" * 16
"""Stands for a machine that cannot be identified."""
_ABANDONED_SECONDS = 24 * 3600
"""The age at which a file of another machine counts as abandoned."""


def temporary_name() -> str:
    """Return a new name for a file that this process writes."""
    pid, machine = os.getpid(), _machine()
    began = None if machine == _UNKNOWN else _began(pid)
    return f".fxtrt-{machine}-{pid}-{began or 0}-{secrets.token_hex(8)}.tmp"


def is_temporary(name: str) -> bool:
    """Return whether `temporary_name` made this name."""
    return _NAME.fullmatch(name) is not None


def is_abandoned(name: str, modified: float) -> bool:
    """Return whether nobody writes this temporary file any more.

    The process that the name holds is asked for if it ran on this machine since it was started.
    Processes of other machines and containers cannot be seen: their files must be a day old.

    Args:
        modified: when the file was last written to, in seconds since the epoch.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return False
    machine, pid, began = match.groups()
    if machine == _machine() != _UNKNOWN:
        with contextlib.suppress(PermissionError):  # a process that this user may not look at
            return _began(int(pid)) != int(began)
    return time.time() - modified > _ABANDONED_SECONDS


def _machine() -> str:
    """Return a digest of the running kernel and the namespaces that process numbers hold in.

    Two containers on one computer share the kernel, but each numbers its own processes.
    """
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # the /proc of another namespace
            return _UNKNOWN
        parts = [Path("/proc/sys/kernel/random/boot_id").read_text()]
        parts += [os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "time")]
    except OSError:  # not Linux
        return _UNKNOWN
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _began(pid: int) -> int | None:
    """Return when a process began, in clock ticks since the computer did; None if it has ended.

    The number of a process that ended is given to another one, which began at another time.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name, in brackets, and may hold blanks and brackets.
    state, *fields = text.rpartition(b")")[2].split()
    return None if state in (b"Z", b"X") else int(fields[18])
