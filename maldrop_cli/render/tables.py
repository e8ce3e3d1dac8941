"""Results as tables: full precision for files, rounded text for people. Text in, text out; nothing trains here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text
from tabulate import LATEX_ESCAPE_RULES, tabulate

from maldrop_cli import __version__
from maldrop_cli.analysis.stats import Interval
from maldrop_cli.files import write_output
from maldrop_cli.names import one_line

JSON_SCHEMA = 1  # of JSON files; raise it whenever a name in them changes its meaning


@dataclass(frozen=True)
class Column:
    """A heading and its cells as text, cleaned for a terminal. ``left``: words rather than numbers. ``spare``: how
    readily a narrow terminal does without it; 0: never."""

    heading: str
    cells: Sequence[str]
    left: bool = False
    spare: int = 0

    @property
    def uniform(self) -> bool:
        """Whether several rows have the same there."""
        return len(self.cells) > 1 and len(set(self.cells)) == 1

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
        widths = _fitting(table.columns, console.width)
        if not any(widths):
            console.file.write(to_text([table], "plain") + "\n")
        else:
            notes = [*table.notes, *_left_out(table.columns, widths, console.width)]
            console.print(_rich(table, widths, console.width), *map(Text, notes), sep="\n")


GAP, FRAME = 2, 3  # characters between columns without a frame, and with one


def _fitting(columns: Sequence[Column], room: int) -> list[int]:
    """The width of each column, 0 for one that is left out; all 0 where not even the indispensable ones fit. Numbers
    are never broken, headings into two lines at most, words too, if that is enough."""
    numbers = range(len(columns))
    kept = [number for number in numbers if not columns[number].spare]
    spare = sorted(set(numbers) - {*kept}, key=lambda number: (columns[number].uniform, columns[number].spare))
    for breaking in (_halved, _longest_word):
        least = [
            max(_halved(each.heading), *(breaking(cell) if each.left else len(cell) for cell in each.cells), 1)
            for each in columns
        ]
        shown = kept if breaking is _longest_word else [*kept, *spare]
        left = room + GAP - sum(least[number] + GAP for number in kept)
        if left >= 0:
            break
    else:
        return [0 for _ in columns]
    widths = [least[number] if number in kept else 0 for number in numbers]
    for number in shown[len(kept) :]:  # the least dispensable first; of a wide one's room, narrower ones make use
        if least[number] + GAP <= left:
            widths[number] = least[number]
            left -= least[number] + GAP
    for number, each in enumerate(columns):
        if widths[number] and each.left:  # words get what numbers leave
            more = min(max(map(len, [each.heading, *each.cells])) - widths[number], left)
            widths[number] += more
            left -= more
    return widths


def _halved(text: str) -> int:
    """The least width at which ``text``, broken between words, takes no more than two lines, none of a sign alone."""
    words = text.split()
    halves = ((" ".join(words[:at]), " ".join(words[at:])) for at in range(1, len(words)))
    return min((max(map(len, each)) for each in halves if len(each[0]) > 1), default=len(text))


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def _left_out(columns: Sequence[Column], widths: Sequence[int], room: int) -> list[str]:
    """A line that names the columns without a width, with their value where all rows have the same."""
    missing = [each for each, width in zip(columns, widths, strict=True) if not width]
    names = "; ".join(f"{each.heading} (all {each.cells[0]})" if each.uniform else each.heading for each in missing)
    return [f"Left out, for {room} columns: {names}. --format plain shows all, --csv FILE writes it."] if names else []


def _rich(table: Table, widths: Sequence[int], room: int) -> RichTable:
    """Framed where the terminal is wide enough for all of it on single lines, else without a frame, with the columns
    that have one of the ``widths``."""
    rich_table = RichTable(title=Text(table.title), title_justify="left", title_style="bold")
    full = [max(map(len, [each.heading, *each.cells])) for each in table.columns]
    framed = sum(width + FRAME for width in full) + 1 <= room
    if not framed:
        rich_table.box, rich_table.show_edge, rich_table.pad_edge = box.SIMPLE_HEAD, False, False
        rich_table.padding = (0, 1, 0, 0)
    shown = [number for number, width in enumerate(widths) if width or framed]
    for number in shown:
        each = table.columns[number]
        justify: Literal["left", "right"] = "left" if each.left else "right"
        rich_table.add_column(Text(each.heading), justify=justify, width=(full if framed else widths)[number])
    for index, row in enumerate(table.rows()):
        rich_table.add_row(*(Text(row[number]) for number in shown), style=table.marked.get(index))
    return rich_table


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """The rows at full precision, with a quote before words that a spreadsheet would take for a formula. MaldropError
    when the file can't be written."""
    import pandas as pd  # here, as it takes a third of a second, and most tables are not written

    cells = [{key: _no_formula(value) for key, value in _plain(row).items()} for row in rows]
    frame = pd.DataFrame(cells, dtype=object)
    write_output(path, frame.to_csv(index=False).encode(errors="replace"))


def write_json(
    rows: Sequence[dict[str, Any]], path: Path, command: str, by_seed: Sequence[dict[str, Any]] = ()
) -> None:
    """As :func:`write_csv`, an object that says which version and which ``command`` wrote it; ``by_seed``: a row a run
    for rows that take several together."""
    content = {
        "version": __version__,
        "schema": JSON_SCHEMA,
        "command": command,
        "rows": [_plain(row) for row in rows],
        "by_seed": [_plain(row) for row in by_seed],
    }
    write_output(path, (json.dumps(content, indent=1) + "\n").encode())


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


def number_column(
    heading: str, values: Iterable[float | Interval | None], digits: int, sign: bool = False, spare: int = 0
) -> Column:
    """A column of numbers; of an interval, the mean and the half-width. ``spare``: as of :class:`Column`."""
    pairs = [(each.mean, each.half) if isinstance(each, Interval) else (each, math.nan) for each in values]
    return Column(heading, [plus_minus(mean, half, digits, sign=sign) for mean, half in pairs], spare=spare)


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
