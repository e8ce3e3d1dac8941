"""Tables as LaTeX, with booktabs' rules: needs ``\\usepackage{booktabs}`` and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "[": "{[}",  # or it would be an argument of the line break before it
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
    "–": "--",
}


def escape(text: str) -> str:
    """LaTeX that prints ``text``: flags keep both hyphens, numbers get a minus."""
    parts = ["".join(_SPECIAL.get(character, character) for character in part) for part in text.split("--")]
    return re.sub(r"(?<![\w-])-(?=[\d.])", "$-$", "-{}-".join(parts))


def table_environment(
    title: str, headings: Sequence[str], left: Sequence[bool], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> str:
    """A ``table``: the title as caption, the body, the notes in small print. ``left``: columns of words."""
    head, *body = [" & ".join(map(escape, row)) + r" \\" for row in (headings, *rows)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(title)}}}",
            rf"\begin{{tabular}}{{{''.join('l' if words else 'r' for words in left)}}}",
            *(r"\toprule", head, r"\midrule", *body, r"\bottomrule"),
            r"\end{tabular}",
            *(rf"\par\footnotesize {escape(note)}" for note in notes),
            r"\end{table}",
        ]
    )
