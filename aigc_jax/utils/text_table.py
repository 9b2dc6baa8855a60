"""Plain-text tables."""


def format_table(rows: list[tuple], header: tuple) -> str:
    """Format rows as a plain-text table, with floats to four significant digits. The
    first column is aligned to the left, the others to the right.

    Args:
      rows: one tuple of cells per row; None is written as "-".
      header: the names of the columns.
    """
    text = [
        tuple(f"{c:.4g}" if isinstance(c, float) else "-" if c is None else str(c) for c in r)
        for r in [header, *rows]
    ]
    widths = [max(map(len, column)) for column in zip(*text, strict=True)]
    lines = [
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w)
            for i, (c, w) in enumerate(zip(r, widths, strict=True))
        )
        for r in text
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])
