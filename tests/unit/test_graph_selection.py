"""graph/selection: the fewest changes are taken back, those that move the outputs most, and only where samples ask."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgewright.contracts import Sample
from edgewright.graph.selection import take_back_fewest

HARM = {"a": 0.01, "b": 0.5, "c": 0.0, "d": 0.2}  # what each change does to the one output


class _Samples(list[Sample]):
    def role(self, *roles: str) -> _Samples:
        assert roles == ("select",)
        return self


def _context(count: int, minimum: float) -> Any:
    """A network is the tuple of its changes; each moves the output, and agreement falls with the whole movement."""

    def run(network: Sequence[str], inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": np.ones(4, np.float32) + np.float32(sum(HARM[name] for name in network)), "i": np.arange(3)}

    def agreement(reference: list[dict[str, np.ndarray]], results: list[dict[str, np.ndarray]]) -> float:
        assert len(reference) == len(results) == count
        return 1 - float(np.mean([abs(r["y"] - x["y"]).max() for x, r in zip(reference, results, strict=True)]))

    samples = _Samples(Sample(str(i), str(i), {"x": np.zeros(1)}) for i in range(count))
    return SimpleNamespace(samples=samples, run=run, agreement=agreement, min_agreement=minimum)


@pytest.mark.parametrize(
    ("minimum", "expected"),
    [(0.2, []), (0.7, ["b"]), (0.95, ["b", "d"]), (0.999, ["b", "d", "a"]), (1.0, ["b", "d", "a"])],
)
def test_the_worst_go_first_and_no_more_than_needed(minimum: float, expected: list[str]) -> None:
    found = take_back_fewest((), tuple(HARM), tuple, _context(3, minimum))  # type: ignore[arg-type]
    assert list(found.taken_back) == expected
    assert found.samples == 3
    assert found.agreement is not None
    assert found.agreement >= minimum
    assert all(found.taken_back[name] == pytest.approx(HARM[name], rel=1e-3) for name in expected)


def test_agreement_that_is_never_reached_takes_all_back() -> None:
    found = take_back_fewest((), tuple(HARM), tuple, _context(2, 1.5))  # type: ignore[arg-type]
    assert set(found.taken_back) == set(HARM)
    assert found.agreement == 1.0


def test_without_samples_nothing_is_asked() -> None:
    context = _context(0, 1.0)
    assert take_back_fewest((), tuple(HARM), tuple, context).agreement is None  # type: ignore[arg-type]
    context.samples = None
    assert not take_back_fewest((), tuple(HARM), tuple, context).taken_back  # type: ignore[arg-type]
    assert take_back_fewest((), (), tuple, _context(2, 1.0)).samples == 0  # type: ignore[arg-type]
