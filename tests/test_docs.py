"""What the documents list is what there is."""

from __future__ import annotations

import pytest
from converter_table import in_document, table


def test_the_table_of_converters_is_up_to_date() -> None:
    pytest.importorskip("torchvision", reason="its operators are in the table")
    assert in_document() == table(), "run python tests/converter_table.py"
