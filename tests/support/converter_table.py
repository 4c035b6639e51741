"""The table of docs/reference/operators.md, from the registry; run it to write the table."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from fxtrt.registry import registered

__all__ = ["DOCUMENT", "in_document", "table"]

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reference" / "operators.md"
FIRST, LAST = "| family | overloads |\n", "\n\n"


def table() -> str:
    """One row for each family of fxtrt's own; overloads named "default" go by the bare name."""
    families: defaultdict[str, list[str]] = defaultdict(list)
    for target, converter in registered().items():
        package, _, family = converter.build.__module__.rpartition(".")
        if package == "fxtrt.converters":
            name = str(target).removeprefix("aten.").removesuffix(".default")
            families[family].append(f"`{name}`{' (opt-in)' if converter.opt_in else ''}")
    rows = [f"| {family} | {' '.join(sorted(names))} |" for family, names in families.items()]
    return "\n".join(["| family | overloads |", "| --- | --- |", *sorted(rows)])


def in_document() -> str:
    """The table that docs/reference/operators.md has."""
    _, _, rest = DOCUMENT.read_text().partition(FIRST)
    return FIRST + rest.partition(LAST)[0].rstrip("\n")


if __name__ == "__main__":
    import torchvision  # noqa: F401  # two families convert its operators

    DOCUMENT.write_text(DOCUMENT.read_text().replace(in_document(), table()))
