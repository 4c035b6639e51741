"""The commands of docs/reference/cli.md, from click; run it to write them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from fxtrt.cli.main import _cli

__all__ = ["DOCUMENT", "in_document", "sections"]

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli.md"
FIRST = "## `fxtrt run`\n"
ORDER = ("run", "report", "build", "verify", "tune", "serve", "export-triton", "bisect", "selftest")


def sections() -> str:
    """A section for each command: what it does, and a table of its options."""
    order = {name: place for place, name in enumerate(ORDER)}
    commands = sorted(_commands(_cli, "fxtrt"), key=lambda c: order.get(c[0].split()[1], 9))
    return "\n".join(_section(name, command) for name, command in commands)


def in_document() -> str:
    """The sections that docs/reference/cli.md has."""
    _, _, rest = DOCUMENT.read_text().partition(FIRST)
    return FIRST + rest


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield f"{path} {name}", command
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _section(name: str, command: click.Command) -> str:
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    options = [p for p in command.params if isinstance(p, click.Option)]
    takes = "".join(f" {(p.name or '').upper()}{'...' * (p.nargs < 0)}" for p in arguments)
    text = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    rows = [f"| {_usage(option)} | {_meaning(option)} |" for option in options]
    table = ["| option | meaning |", "| --- | --- |", *rows] if rows else []
    parts = [f"## `{name}{takes}`", text, *(["\n".join(table)] if table else [])]
    return "\n\n".join(parts) + "\n"


def _usage(option: click.Option) -> str:
    value = "" if option.is_flag else option.metavar or option.type.name
    shown = value if value != value.lower() else value.upper()
    return f"`{', '.join(option.opts)}{' ' * bool(shown)}{shown}`"


def _meaning(option: click.Option) -> str:
    default = f" By default `{option.default}`." if option.show_default else ""
    return f"{option.help or ''}{default}".replace("|", r"\|")


if __name__ == "__main__":
    DOCUMENT.write_text(DOCUMENT.read_text().replace(in_document(), sections()))
