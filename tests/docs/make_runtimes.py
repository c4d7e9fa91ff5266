"""Write docs/runtimes.md from the matrix of tests/runtimes: what runs where, how exactly, and why not. Takes minutes.

    python tests/docs/make_runtimes.py [--check]

`tests/runtimes/test_matrix.py` holds every cell against this page: which are refused, and why, must be equal; the decade
of a distance depends on the CPU and may differ. Runtimes that are not installed keep their columns. With --check nothing
is written.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from tests.runtimes.operators import OPERATORS, PRECISIONS, RUNTIMES, Outcome, operator_model, outcome  # noqa: E402

from edgewright import registry  # noqa: E402

HEAD = """# What runs where, and how exactly

Made by `tests/docs/make_runtimes.py` from the runtime matrix of the tests: each row is a small network of that operator with
random weights. A cell is the relative L2 distance between the runtime's outputs and those that the numpy reference computes
for the same graph, as the decade that it stays below; it depends a little on the CPU. `fp16` compares with float16 arithmetic.
`int8` is a network in which a layer stands before the operator, quantized by `quantize_static` in the runtime's own format; both
sides evaluate that quantized graph. Refused is what the runtime says before anything is converted; the reasons follow below.
What networks of your own need, `edgewright inspect MODEL --runtimes` says.
"""
_REASON = re.compile(r"- (\S+) (\S+), (all|`\S+`(?:, `\S+`)*): (.*)")
_SHAPING = {"CastLike", "Constant", "Neg"}  # parts of a test graph, not what it is about

Key = tuple[str, str, str]  # operator, runtime, precision


@dataclass(frozen=True)
class Page:
    """The page as a table: cells by operator, runtime and precision, and the reasons of refusals."""

    PATH: ClassVar[Path] = ROOT / "docs" / "runtimes.md"

    rows: Mapping[str, str]  # operator -> the ONNX operators in it
    runtimes: tuple[str, ...]
    cells: Mapping[Key, str]
    reasons: Mapping[Key, str]

    @classmethod
    def read(cls) -> Self:
        """The page as it is committed."""
        return cls.parse(cls.PATH.read_text(encoding="utf-8"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The page that `text` wrote."""
        lines = text.splitlines()
        table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        columns = [tuple(title.split()) for title in table[0][2:]]
        rows = {row[0].strip("`"): row[1] for row in table[2:]}
        cells = {
            (row[0].strip("`"), runtime, precision): cell
            for row in table[2:]
            for (runtime, precision), cell in zip(columns, row[2:], strict=True)
        }
        reasons = {}
        for match in filter(None, map(_REASON.fullmatch, lines)):
            for name in rows if match[3] == "all" else re.findall(r"`(\S+?)`", match[3]):
                reasons[name, match[1], match[2]] = match[4]
        return cls(rows, tuple(dict.fromkeys(runtime for runtime, _ in columns)), cells, reasons)

    @classmethod
    def measured(cls, known: Page | None) -> Page:
        """The page anew; columns of runtimes that are not installed here are taken from `known`."""
        installed = set(registry.installed("runtimes"))
        kept = known.runtimes if known else ()
        runtimes = tuple(name for name in RUNTIMES if name in installed or name in kept)
        rows = {name: ", ".join(_operators(name)) for name in OPERATORS}
        keys = [(name, runtime, precision) for runtime in runtimes for precision in PRECISIONS for name in rows]
        cells, reasons = {}, {}
        for key in keys:
            if key[1] in installed:
                print(*key, file=sys.stderr, flush=True)
                found = outcome(*key)
                cells[key], text = found.cell, found.refused
            else:
                assert known is not None
                cells[key], text = known.cells.get(key, "?"), known.reasons.get(key, "")
            if text:
                reasons[key] = text
        return cls(rows, runtimes, cells, reasons)

    def agrees(self, name: str, runtime: str, precision: str, found: Outcome) -> bool:
        """True where the page says the same of a cell, up to the decade of a distance."""
        key = (name, runtime, precision)
        told = self.cells.get(key, "")
        return self.reasons.get(key, "") == found.refused and (
            told == found.cell or (not found.refused and "<=" in told)
        )

    def text(self) -> str:
        """The page as Markdown."""
        titles = ["network", "operators", *(f"{r} {p}" for r in self.runtimes for p in PRECISIONS)]
        lines = [_line(titles), _line(["---"] * len(titles))]
        for name, operators in self.rows.items():
            own = [self.cells[name, runtime, precision] for runtime in self.runtimes for precision in PRECISIONS]
            lines.append(_line([f"`{name}`", operators, *own]))
        notes = list(self._notes())
        tail = ["", "## Why refused", "", *notes] if notes else ["", "Nothing in this matrix is refused."]
        return "\n".join([HEAD, *lines, *tail]) + "\n"

    def _notes(self) -> Iterator[str]:
        """A line for each reason, with all networks that it holds for."""
        groups: dict[tuple[str, str, str], list[str]] = {}
        for (name, runtime, precision), why in self.reasons.items():
            groups.setdefault((runtime, precision, why), []).append(name)
        for (runtime, precision, why), names in groups.items():
            which = "all" if len(names) == len(self.rows) else ", ".join(f"`{name}`" for name in names)
            yield f"- {runtime} {precision}, {which}: {why}"


def _operators(name: str) -> list[str]:
    """The ONNX operators of a test graph."""
    found = dict.fromkeys(node.op_type for node in operator_model(name, "float32").ir.graph.all_nodes())
    return [operator for operator in found if operator not in _SHAPING]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Write the page, or with --check say whether it is what would be written; the exit code."""
    known = Page.read() if Page.PATH.exists() else None
    page = Page.measured(known)
    if "--check" in sys.argv:
        stale = known is None or page.rows != known.rows or page.reasons != known.reasons
        print("stale: docs/runtimes.md" if stale else "docs/runtimes.md is up to date")
        return int(stale)
    Page.PATH.write_text(page.text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
