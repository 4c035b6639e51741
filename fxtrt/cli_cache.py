"""The command line: `fxtrt cache ls`, `rm` and `verify`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
from tabulate import tabulate

from .cache import CacheEntry, entries
from .errors import CacheError
from .plan_file import read_header, read_plan
from .settings import Settings

__all__ = ["cache"]

_SHOWN = 12
"""Characters of a key: enough to name it."""


@click.group()
@click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="By default FXTRT_CACHE_DIR, or fxtrt in the user's cache directory.",
)
@click.pass_context
def cache(context: click.Context, cache_dir: Path | None) -> None:
    """Look after the plans that are kept between runs."""
    directory = cache_dir or Settings.from_env().cache_dir
    assert directory is not None
    context.obj = directory


@cache.command()
@click.pass_obj
def ls(directory: Path) -> None:
    """List the plans, the most recently used first."""
    found, now = entries(directory), time.time()
    if found:
        headers = ["key", "kind", "size", "age", "last use", "nodes", "part", "engine", "runs on"]
        table = [_cells(entry, now) for entry in found]
        click.echo(tabulate(table, headers=headers, disable_numparse=True) + "\n")
    click.echo(f"{_total(found)} in {directory}")


@cache.command()
@click.argument("keys", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Remove all.")
@click.pass_obj
def rm(directory: Path, keys: Sequence[str], everything: bool) -> None:
    """Remove the plans whose keys begin with KEYS."""
    if bool(keys) == everything:
        raise click.UsageError("name the keys to remove, as `fxtrt cache ls` prints them, or --all")
    found = entries(directory)
    for key in keys:
        if not any(entry.digest.startswith(key) for entry in found):
            raise click.BadParameter(f"no key begins with {key!r}: see `fxtrt cache ls`")
    chosen = [e for e in found if everything or e.digest.startswith(tuple(keys))]
    for entry in chosen:
        entry.path.unlink(missing_ok=True)
    click.echo(f"removed {_total(chosen)}")


@cache.command()
@click.pass_obj
def verify(directory: Path) -> None:
    """Read every plan and check it against its digest.

    Ends with status 1 where one is damaged; the next compilation would build that one again.
    """
    found = entries(directory)
    damaged = [error for entry in found if (error := _damage(entry)) is not None]
    for error in damaged:
        click.echo(error)
    click.echo(f"{_total(found)} in {directory}, {len(damaged)} damaged")
    if damaged:
        sys.exit(1)


def _damage(entry: CacheEntry) -> str | None:
    try:
        read_plan(entry.path)
    except (CacheError, OSError) as error:
        return str(error)
    return None


def _cells(entry: CacheEntry, now: float) -> list[str]:
    key, size, used = entry.digest[:_SHOWN], _megabytes(entry.size), _age(now - entry.used)
    try:
        header = read_header(entry.path)
    except (CacheError, OSError):
        return [key, entry.kind, size, "", used, "", "(damaged)", "", ""]
    age, part = _age(now - header.created), header.modules or "(model)"
    nodes = str(header.nodes)
    return [key, entry.kind, size, age, used, nodes, part, header.engine, header.runs_on]


def _total(found: Sequence[CacheEntry]) -> str:
    size = _megabytes(sum(entry.size for entry in found))
    return f"{len(found)} file{'s' * (len(found) != 1)}, {size}"


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
