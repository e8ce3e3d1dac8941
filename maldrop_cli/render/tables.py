"""Results as tables: full precision for files, rounded text for people. Text in, text out; nothing trains here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text
from tabulate import LATEX_ESCAPE_RULES, tabulate

from maldrop_cli.analysis.stats import Interval
from maldrop_cli.files import write_output
from maldrop_cli.names import one_line


@dataclass(frozen=True)
class Column:
    """A heading and its cells as text, cleaned for a terminal. ``left``: words rather than numbers."""

    heading: str
    cells: Sequence[str]
    left: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "heading", one_line(self.heading))
        object.__setattr__(self, "cells", [one_line(cell) for cell in self.cells])

    def only(self, rows: Iterable[int]) -> Column:
        """Some of its rows."""
        return replace(self, cells=[self.cells[row] for row in rows])


@dataclass(frozen=True)
class Table:
    """What a person reads. ``marked``: rows to set off (the best, the worst), by number, with a style."""

    title: str
    columns: Sequence[Column]
    notes: Sequence[str] = ()
    marked: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", one_line(self.title))
        object.__setattr__(self, "notes", [one_line(note) for note in self.notes])

    def rows(self) -> list[list[str]]:
        return [list(row) for row in zip(*(column.cells for column in self.columns), strict=True)]


def to_text(tables: Sequence[Table], form: str) -> str:
    """``plain``, ``markdown`` or ``latex`` text, no colour. The LaTeX needs ``\\usepackage{booktabs}`` and no more."""
    return "\n\n".join(_table_text(table, form) for table in tables)


def _table_text(table: Table, form: str) -> str:
    rows = table.rows()
    if form == "markdown":
        rows = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    if form == "latex" and not rows:  # without a row, tabulate declares no columns, and LaTeX stops at the headings
        rows = [[""] * len(table.columns)]
    body = tabulate(
        rows,
        headers=[column.heading for column in table.columns],
        tablefmt={"plain": "simple", "markdown": "pipe", "latex": "latex_booktabs"}[form],
        disable_numparse=True,
        colalign=["left" if column.left else "right" for column in table.columns] if rows else None,
    )
    if form == "latex":
        opening = [r"\begin{table}", r"\centering", rf"\caption{{{latex(table.title)}}}"]
        notes = [rf"\par\footnotesize {latex(note)}" for note in table.notes]
        return "\n".join([*opening, _latex_signs(body), *notes, r"\end{table}"])
    title = f"**{table.title}**" if form == "markdown" else table.title
    notes = [f"- {note}" for note in table.notes] if form == "markdown" else list(table.notes)
    return "\n\n".join(part for part in (title, body, "\n".join(notes)) if part)


def latex(text: str) -> str:
    """LaTeX that prints ``text``: flags keep both hyphens, numbers get a minus."""
    return _latex_signs(text.translate(str.maketrans(LATEX_ESCAPE_RULES)))


_SIGNS = str.maketrans(
    {
        "|": r"\textbar{}",
        "[": "{[}",  # or it would be an argument of the line break before it
        "±": r"$\pm$",
        "×": r"$\times$",
        "Δ": r"$\Delta$",
        "–": "--",
    }
)


def _latex_signs(escaped: str) -> str:
    """The part of :func:`latex` that tabulate does not do itself."""
    text = escaped.replace("--", "-{}-").translate(_SIGNS)
    return re.sub(r"(?<![\w-])-(?=[\d.])", "$-$", text)


def show(tables: Sequence[Table], form: str, console: Console) -> None:
    """Print on stdout. ``auto`` is Rich on a terminal and plain elsewhere."""
    if form == "auto":
        form = "rich" if console.is_terminal else "plain"
    if form != "rich":
        console.file.write(to_text(tables, form) + "\n")
        return
    for index, table in enumerate(tables):
        if index:
            console.print()
        if (rich_table := _rich(table, console)) is None:
            console.file.write(to_text([table], "plain") + "\n")
        else:
            console.print(rich_table, *map(Text, table.notes), sep="\n")


def _rich(table: Table, console: Console) -> RichTable | None:
    """Framed where the terminal is wide enough, else without a frame; either way, cells break between words alone. None
    where the terminal is too narrow for that: cropped cells would be wrong ones."""
    any_width = console.options.update(max_width=10_000)
    rich_table = RichTable(title=Text(table.title), title_justify="left", title_style="bold")
    for column in table.columns:
        words = " ".join([column.heading, *column.cells]).split()
        rich_table.add_column(
            Text(column.heading), justify="left" if column.left else "right", min_width=max(map(len, words), default=0)
        )
    for index, row in enumerate(table.rows()):
        rich_table.add_row(*(Text(cell) for cell in row), style=table.marked.get(index))
    if console.measure(rich_table, options=any_width).maximum > console.width:
        rich_table.box, rich_table.show_edge, rich_table.pad_edge = box.SIMPLE_HEAD, False, False
        rich_table.padding = (0, 1, 0, 0)
        for narrow, column in zip(rich_table.columns, table.columns, strict=True):
            narrow.width = None if column.left else narrow.min_width  # words get what numbers leave
    return rich_table if console.measure(rich_table, options=any_width).minimum <= console.width else None


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """The rows at full precision, with a quote before words that a spreadsheet would take for a formula. MaldropError
    when the file can't be written."""
    import pandas as pd  # here, as it takes a third of a second, and most tables are not written

    cells = [{key: _no_formula(value) for key, value in _plain(row).items()} for row in rows]
    frame = pd.DataFrame(cells, dtype=object)
    write_output(path, frame.to_csv(index=False).encode(errors="replace"))


def write_json(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """As :func:`write_csv`, a list of objects."""
    write_output(path, (json.dumps([_plain(row) for row in rows], indent=1) + "\n").encode())


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Values that are not finite become None: JSON has no word for them, and CSV leaves the cell empty."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """A number with ``digits`` decimals; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:{'+' if sign else ''}z.{digits}f}"  # z: no -0.00


def number_column(heading: str, values: Iterable[float | Interval | None], digits: int, sign: bool = False) -> Column:
    """A column of numbers; of an interval, the mean and the half-width."""
    pairs = [(each.mean, each.half) if isinstance(each, Interval) else (each, math.nan) for each in values]
    return Column(heading, [plus_minus(mean, half, digits, sign=sign) for mean, half in pairs])


def plus_minus(mean: float | None, half: float, digits: int, *, sign: bool = False) -> str:
    """``97.21 ±0.32``; without a half-width, the mean alone."""
    text = number(mean, digits, sign=sign)
    return f"{text} ±{half:.{digits}f}" if math.isfinite(half) else text


def with_interval(value: float, low: float, high: float) -> str:
    """``0.722 [0.708, 0.740]``, with fewer decimals from 10 on; without an interval, the value alone."""
    digits = 3 if value < 10 else 1
    interval = f" [{low:.{digits}f}, {high:.{digits}f}]" if math.isfinite(low) else ""
    return f"{value:.{digits}f}{interval}"


def plural(count: int, noun: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def duration(seconds: float) -> str:
    """``8.2 s``, ``3:05``, ``2:10:00``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
