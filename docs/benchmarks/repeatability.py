"""Does `maldrop timeit` say the same when it is asked again?

    python docs/benchmarks/repeatability.py --out DIR [--pairs 10] [FLAGS OF TIMEIT ...]

Runs `maldrop timeit` twice, one after the other, and that ten times over, and looks at every ratio: whether its 95 %
intervals of the two runs overlap, and how wide they are: by half their width, as --precision counts, and by how far the
longer side reaches. A run takes from ten seconds to two minutes. Each is a file in DIR, and what is there isn't
measured again: cut it off and go on as you like, with the same flags. --pairs 0 prints the table of what is there.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from maldrop_cli.render.tables import Column, Table, number, to_text

WIDEST = 3.0  # percent
REFERENCES = ("none", "vanilla")
Rows = list[dict[str, Any]]


class Ratio(NamedTuple):
    """Of one subject to a reference, in a pair of runs. In percent of the ratio, of the wider interval: ``half`` its
    width, and ``side``, how far it reaches from the ratio."""

    name: str
    overlaps: bool
    half: float
    side: float


def ratios(first: Rows, second: Rows) -> Iterator[Ratio]:
    for one, other in zip(first, second, strict=True):
        assert one["subject"] == other["subject"]
        for reference in REFERENCES:
            key = f"ratio_vs_{reference}"
            if one["subject"] == reference:
                continue
            (_, low, high), (_, other_low, other_high) = ends = [
                (row[key], row[f"{key}_lo"], row[f"{key}_hi"]) for row in (one, other)
            ]
            half = max((high - low) / 2 / ratio for ratio, low, high in ends)
            side = max(max(high - ratio, ratio - low) / ratio for ratio, low, high in ends)
            overlaps = low <= other_high and other_low <= high
            yield Ratio(f"{one['subject']} × {reference}", overlaps, 100 * half, 100 * side)


def run(path: Path, flags: list[str]) -> None:
    part = path.with_suffix(".part")
    command = [sys.executable, "-m", "maldrop_cli", "timeit", "-q", "--json", str(part), *flags]
    print(path.stem, flush=True, file=sys.stderr)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    part.rename(path)


def table(folder: Path) -> Table:
    pairs = []
    for path in sorted(folder.glob("*-a.json")):
        second = path.with_name(path.name.replace("-a.", "-b."))
        if second.exists():
            pairs.append((path.stem[:-2], list(ratios(*(json.loads(each.read_text()) for each in (path, second))))))
    halves, sides = ([max(getattr(r, width) for r in found) for _, found in pairs] for width in ("half", "side"))
    columns = [
        Column("pair", [name for name, _ in pairs]),
        Column("ratios that overlap", [f"{sum(r.overlaps for r in found)} of {len(found)}" for _, found in pairs]),
        Column("apart", [", ".join(r.name for r in found if not r.overlaps) or "–" for _, found in pairs], left=True),
        Column("widest half %", [number(half, 1) for half in halves]),
        Column("longest side %", [number(side, 1) for side in sides]),
    ]
    agree = sum(all(ratio.overlaps for ratio in found) for _, found in pairs)
    narrow, short = (sum(each <= WIDEST for each in widths) for widths in (halves, sides))
    notes = [
        f"Of {len(pairs)} pairs, all ratios overlap in {agree}; no interval is wider than ±{WIDEST:g} % in {narrow}, "
        f"none reaches further than {WIDEST:g} % to either side in {short}."
    ]
    return Table("`maldrop timeit`, twice", columns, notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=10)
    arguments, flags = parser.parse_known_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for pair in range(1, arguments.pairs + 1):
        for which in "ab":
            path = arguments.out / f"{pair:02}-{which}.json"
            if not path.exists():
                run(path, flags)
    print(to_text([table(arguments.out)], "markdown"))


if __name__ == "__main__":
    main()
