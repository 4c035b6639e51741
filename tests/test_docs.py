"""What the documents list is what there is."""

from __future__ import annotations

import importlib
import re
from dataclasses import fields
from pkgutil import resolve_name

import cli_table
import converter_table
import pytest
import settings_table
from markdown_files import DOCUMENTS, ROOT, name_of

from fxtrt import Coverage, Settings
from fxtrt.reporting import (
    ClusterRow,
    DemotionRow,
    GateRow,
    GuardRow,
    RejectionRow,
    RuntimeRow,
)

REFERENCE = ROOT / "docs" / "reference"
PUBLIC = ("fxtrt", "fxtrt.errors", "fxtrt.detection")


def test_the_table_of_converters_is_up_to_date() -> None:
    pytest.importorskip("torchvision", reason="its operators are in the table")
    expected = converter_table.table()
    assert converter_table.in_document() == expected, "run python tests/support/converter_table.py"


def test_the_tables_of_detectors_have_every_family() -> None:
    """The figures are measured for hours; what stands around them is made by the same script."""
    pytest.importorskip("torchvision", reason="the measurements are of its and Detectron2's models")
    from detector_families import FAMILIES
    from detector_table import section

    words = " ".join((REFERENCE / "detectors.md").read_text().split())
    assert " ".join(section({}).split()) in words
    tables = re.findall(r"\| ([^|]+?) +\|[^\n]*", (REFERENCE / "detectors.md").read_text())
    names = [family.name for family in FAMILIES]
    assert tables == ["family", *names] * 2


def test_the_table_of_settings_is_up_to_date() -> None:
    expected = settings_table.table()
    assert settings_table.in_document() == expected, "run python tests/support/settings_table.py"


def test_every_setting_is_documented_once() -> None:
    documented = [name for names in settings_table.field_texts() for name in names]
    assert sorted(documented) == sorted(field.name for field in fields(Settings))


def test_the_commands_are_up_to_date() -> None:
    assert cli_table.in_document() == cli_table.sections(), "run python tests/support/cli_table.py"


def test_every_variable_of_the_environment_is_documented() -> None:
    page = (REFERENCE / "environment.md").read_text()
    code = "".join(path.read_text() for path in (ROOT / "fxtrt").rglob("*.py"))
    named = set(re.findall(r"FXTRT_[A-Z_]*[A-Z]", code))
    assert named
    assert {name for name in named if f"`{name}`" not in page} == set()


def test_every_field_of_a_report_is_documented() -> None:
    page = (REFERENCE / "report.md").read_text()
    rows = (Coverage, ClusterRow, RejectionRow, RuntimeRow, GuardRow, GateRow, DemotionRow)
    named = {field.name for row in rows for field in fields(row)}
    assert {name for name in named if f"`{name}`" not in page} == set()


def test_every_rejection_code_is_documented() -> None:
    """Codes are the first argument of `Rejection`, or the `code` of a row."""
    page = (REFERENCE / "rejection-codes.md").read_text()
    code = "".join(path.read_text() for path in (ROOT / "fxtrt").rglob("*.py"))
    used = set(re.findall(r"Rejection\(\s*\"(\w+)\"", code))
    used |= set(re.findall(r"\bcode=\"(\w+)\"", code))
    documented = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    assert documented == used


def test_the_public_names_are_listed_and_exist() -> None:
    page = (REFERENCE / "public-api.md").read_text()
    listed = set(re.findall(r"^\| `(fxtrt[\w.]*)", page, re.MULTILINE))
    for name in listed:
        resolve_name(name)
    for package in PUBLIC:
        exported = importlib.import_module(package).__all__
        assert {f"{package}.{name}" for name in exported} - listed == set()


def test_no_document_is_left_out() -> None:
    """The checks walk the same files as a reader finds."""
    names = {name_of(path) for path in DOCUMENTS}
    assert {"README.md", "CONTRIBUTING.md", "docs/README.md"} <= names


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
