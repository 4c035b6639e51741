"""Implements `fxtrt cache ls`, `rm` and `verify`, which look after the plan cache."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from tabulate import tabulate

from ..cache.folder import cache_folder, remove
from ..cache.owner import untrusted
from ..cache.plan_file import (
    opened,
    parse_plan,
    read_header,
)
from ..cache.store import CacheEntry, entries
from ..errors import CacheError
from ..settings import Settings

__all__ = ["cache"]

_KEY_SHOWN = 12
"""The number of characters of a key that are printed, which suffice to name it."""
_TEXT_SHOWN = 100
"""The most characters of other cells."""


class _Group(click.Group):
    """Says in one line what the file system refuses."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # nobody reads the output any more
            raise
        except OSError as error:
            raise CacheError(f"the cache cannot be looked at: {error}") from error


@click.group(cls=_Group)
@click.option(
    "--cache-dir",
    metavar="DIRECTORY",
    help="By default FXTRT_CACHE_DIR, or fxtrt in the user's cache directory.",
)
@click.pass_context
def cache(context: click.Context, cache_dir: str | None) -> None:
    """Look after the plans that are kept between runs."""
    settings = Settings.of(None, {} if cache_dir is None else {"cache_dir": cache_dir})
    if settings.cache_dir is None:
        raise click.UsageError(
            "there is no home folder to have a cache in: name one with --cache-dir, or set "
            "FXTRT_CACHE_DIR"
        )
    context.obj = cache_folder(settings.cache_dir)


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
        if not key:
            raise click.BadParameter("a key is empty, and every key begins so: use --all for all")
        if not any(entry.digest.startswith(key) for entry in found):
            raise click.BadParameter(f"no key begins with {key!r}: see `fxtrt cache ls`")
    chosen = [e for e in found if everything or e.digest.startswith(tuple(keys))]
    removed = [entry for entry in chosen if remove(entry.path)]
    click.echo(f"removed {_total(removed)}")
    for entry in chosen:
        if entry not in removed:
            click.echo(f"left {entry.path}: it is not fxtrt's, belongs to another user, or is gone")
    if removed != chosen:
        sys.exit(1)


@cache.command()
@click.pass_obj
def verify(directory: Path) -> None:
    """Read every plan and check it against its digest, and who may write to it.

    The exit status is 1 if a plan is damaged or refused; the next compilation would build that
    one again.
    """
    found = entries(directory)
    damaged = [error for entry in found if (error := _damage(entry)) is not None]
    refused = [error for entry in found if (error := _doubt(entry)) is not None]
    for error in (*damaged, *refused):
        click.echo(error)
    also = f", {len(refused)} refused" if refused else ""
    click.echo(f"{_total(found)} in {directory}, {len(damaged)} damaged{also}")
    if damaged or refused:
        sys.exit(1)


def _damage(entry: CacheEntry) -> str | None:
    try:
        with opened(entry.path) as file:
            parse_plan(file, entry.path)
    except (CacheError, OSError) as error:
        return str(error)
    return None


def _doubt(entry: CacheEntry) -> str | None:
    """Return why the owner or mode of a file keeps its plan from being run, or None."""
    if Settings.from_env().cache_trust == "anyone":
        return None
    try:
        with opened(entry.path) as file:
            return untrusted(entry.path, file)
    except (CacheError, OSError):  # `_damage` reports this
        return None


def _cells(entry: CacheEntry, now: float) -> list[str]:
    key, size, used = entry.digest[:_KEY_SHOWN], _megabytes(entry.size), _age(now - entry.used)
    try:
        header = read_header(entry.path)
    except (CacheError, OSError):
        return [key, entry.kind, size, "", used, "", "(damaged)", "", ""]
    age, part = _age(now - header.created), header.modules or "(model)"
    nodes = str(header.nodes)
    texts = map(_printable, (part, header.engine, header.runs_on))
    return [key, entry.kind, size, age, used, nodes, *texts]


def _printable(text: str) -> str:
    """Return text from a file on one line, with the escape codes of a terminal spelt out."""
    shown = text if len(text) <= _TEXT_SHOWN else text[: _TEXT_SHOWN - 1] + "…"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in shown
    )


def _total(found: Sequence[CacheEntry]) -> str:
    size = _megabytes(sum(entry.size for entry in found))
    return f"{len(found)} {'file' if len(found) == 1 else 'files'}, {size}"


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
