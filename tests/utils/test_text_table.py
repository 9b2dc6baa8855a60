"""Tables of text, and those within Markdown."""

import pytest
from helpers import ROOT

from aigc_jax.utils.text_table import Table, parse_markdown

pytestmark = pytest.mark.unit


def test_columns_are_aligned_and_numbers_are_readable():
    rows = [("loss", 0.693147, None), ("frechet", 12_345.6, 2.0), ("step", 20_000, True)]
    assert str(Table(("", "train", "test"), rows)).splitlines() == [
        "          train  test",
        "-------  ------  ----",
        "loss     0.6931     -",
        "frechet  12,346     2",
        "step     20,000  True",
    ]


def test_tables_are_extracted_from_markdown():
    text = (
        "| beta | loss |\n|---|---:|\n| 0.5 | 1.2 (0.3) |\n| | 3 |\n\nA note | with a bar.\n"
        "\n| a | b |\n|---|---|\n| unequal |\n"
    )
    table, *rest = parse_markdown(text)
    assert table == Table(("beta", "loss"), [("0.5", "1.2 (0.3)"), ("", "3")])
    assert rest == ["A note | with a bar.", "| a | b |\n|---|---|\n| unequal |"]
    assert parse_markdown("figure: a/b.png") == ["figure: a/b.png"] and parse_markdown("") == []
    assert parse_markdown("| one line |\n") == ["| one line |"]


def test_committed_tables_keep_every_cell():
    paths = sorted((ROOT / "experiments" / "results").glob("*/table.md"))
    assert paths
    for path in paths:
        text = path.read_text()
        parts = parse_markdown(text)
        tables = [part for part in parts if isinstance(part, Table)]
        assert tables, path
        cells = [cell for table in tables for row in table.format_rows() for cell in row]
        words = " ".join([*cells, *(part for part in parts if isinstance(part, str))]).split()
        marks = set("|-: ")
        expected = [word for word in text.replace("|", " ").split() if set(word) - marks]
        assert [word for word in words if set(word) - marks] == expected, path
