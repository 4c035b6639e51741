"""A plugin of pytest: `--seconds` prints how long the tests of each package took.

The columns are seconds of wall time, and of processor time in the test's process and in those that
it waited for: these change little where other programs run. `--seconds=file` has a row per file,
`--seconds=group` one for each group that runs in one worker.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import PurePosixPath

import pytest
from shards import group_of
from tabulate import tabulate

_PROCESSOR = "processor seconds"
_STARTED = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seconds",
        nargs="?",
        const="package",
        choices=("package", "file", "group"),
        help="print how long the tests of each package took, or of each file or group",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    item.stash[_STARTED] = _processor_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    try:
        return (yield)
    finally:
        item.user_properties.append((_PROCESSOR, _processor_seconds() - item.stash[_STARTED]))


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    kind = terminalreporter.config.getoption("--seconds")
    if kind is None:
        return
    tests: dict[str, set[str]] = defaultdict(set)
    wall: dict[str, float] = defaultdict(float)
    processor: dict[str, float] = defaultdict(float)
    for report in _reports(terminalreporter):
        name = _row(report.nodeid, kind)
        tests[name].add(report.nodeid)
        wall[name] += report.duration
        if report.when == "teardown":
            measured = dict(report.user_properties).get(_PROCESSOR)
            processor[name] += measured if isinstance(measured, float) else 0.0
    rows = [(name, len(tests[name]), wall[name], processor[name]) for name in sorted(tests)]
    total = ("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:]))
    headers = (kind, "tests", "seconds", "processor")
    terminalreporter.section(f"seconds by {kind}")
    terminalreporter.write_line(
        tabulate([*rows, total], headers=headers, tablefmt="github", floatfmt=".0f")
    )


def _reports(terminalreporter: pytest.TerminalReporter) -> Iterator[pytest.TestReport]:
    for reports in terminalreporter.stats.values():
        yield from (report for report in reports if isinstance(report, pytest.TestReport))


def _row(nodeid: str, kind: str) -> str:
    """The row that a test counts for."""
    path = PurePosixPath(nodeid.partition("::")[0])
    if kind == "package":
        return "/".join(path.parts[1:-1]) or path.stem
    return group_of(nodeid) if kind == "group" else str(path)
