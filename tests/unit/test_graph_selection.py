"""graph/selection: the fewest changes are taken back, those that move the outputs most, and only where samples ask."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgewright.contracts import Sample
from edgewright.graph.selection import take_back_fewest

HARM = {"a": 0.05, "b": 0.5, "c": 0.0, "d": 0.2}  # what each change does to the one output


class _Samples(list[Sample]):
    def role(self, *roles: str) -> _Samples:
        assert roles == ("select",)
        return self


def _context(count: int, minimum: float) -> Any:
    """A network is the tuple of its changes; each moves the output, and agreement falls with the whole movement."""

    def runner(network: Sequence[str]) -> Any:
        return lambda inputs: {
            "y": np.ones(4, np.float32) + np.float32(sum(HARM[name] for name in network)),
            "i": np.arange(3),
        }

    def agreement(reference: list[dict[str, np.ndarray]], results: list[dict[str, np.ndarray]]) -> float:
        assert len(reference) == len(results) == min(count, 100)
        return 1 - float(np.mean([abs(r["y"] - x["y"]).max() for x, r in zip(reference, results, strict=True)]))

    samples = _Samples(Sample(str(i), str(i), {"x": np.zeros(1)}) for i in range(count))
    progress = SimpleNamespace(update=lambda *arguments: None)
    return SimpleNamespace(
        progress=progress,
        samples=samples,
        runner=runner,
        agreement=agreement,
        required=lambda count: min(minimum, 1 - 1 / count),
    )


@pytest.mark.parametrize(
    ("minimum", "expected"),
    [(0.2, []), (0.7, ["b"]), (0.9, ["b", "d"]), (0.98, ["b", "d", "a"]), (1.0, ["b", "d", "a"])],
)
def test_the_worst_go_first_and_no_more_than_needed(minimum: float, expected: list[str]) -> None:
    found = take_back_fewest((), tuple(HARM), tuple, _context(2000, minimum))  # type: ignore[arg-type]
    assert list(found.taken_back) == expected
    assert found.agreement is not None
    assert found.agreement >= found.required == min(minimum, 1 - 1 / found.samples)
    assert all(found.taken_back[name] == pytest.approx(HARM[name], rel=1e-3) for name in expected)
    assert found.steps[0] == (0, pytest.approx(0.25, abs=1e-6))
    assert dict(found.steps)[len(expected)] == found.agreement


def test_one_sample_alone_never_decides() -> None:
    """Of three samples one may disagree, whatever was asked for."""
    found = take_back_fewest((), ("a", "d"), tuple, _context(3, 0.999))  # type: ignore[arg-type]
    assert found.required == pytest.approx(2 / 3)
    assert found.agreement == pytest.approx(0.75)
    assert not found.taken_back


@pytest.mark.parametrize(
    ("most", "expected", "agreement"), [(0, [], 0.25), (1, ["b"], 0.75), (2, ["b", "d"], 0.95), (3, ["b", "d"], 0.95)]
)
def test_where_as_many_as_may_are_not_enough_the_nearest_counts(
    most: int, expected: list[str], agreement: float
) -> None:
    found = take_back_fewest((), tuple(HARM), tuple, _context(100, 0.94), most=most)  # type: ignore[arg-type]
    assert list(found.taken_back) == expected
    assert found.agreement == pytest.approx(agreement)


def test_of_equally_near_ones_the_fewest_are_taken_back() -> None:
    """What is taken back may not help at all."""
    context = _context(100, 0.94)
    context.agreement = lambda expected, got: 0.5
    assert not take_back_fewest((), tuple(HARM), tuple, context, most=3).taken_back  # type: ignore[arg-type]


def test_each_is_tried_alone_where_it_is_asked_for() -> None:
    context = _context(100, 0.1)
    assert not take_back_fewest((), tuple(HARM), tuple, context).alone  # type: ignore[arg-type]
    found = take_back_fewest((), tuple(HARM), tuple, context, alone=lambda name: (name,))  # type: ignore[arg-type, return-value]
    assert found.alone == {name: pytest.approx(harm, rel=1e-3, abs=1e-9) for name, harm in HARM.items()}
    assert not found.taken_back


def test_in_the_end_the_network_that_ships_is_asked() -> None:
    """The search ran over cheaper ones; where nothing is taken back there was only the one."""
    made: list[list[str]] = []

    def final(names: Sequence[str]) -> Any:
        made.append(list(names))
        return ("c",)

    found = take_back_fewest((), tuple(HARM), tuple, _context(100, 0.94), final=final)  # type: ignore[arg-type]
    assert list(found.taken_back) == ["b", "d"]
    assert made == [["a", "c"]]
    assert found.agreement == 1
    assert dict(found.steps)[2] == 1
    assert not take_back_fewest((), ("c",), tuple, _context(100, 0.94), final=final).taken_back  # type: ignore[arg-type]
    assert len(made) == 1


def test_without_samples_nothing_is_asked() -> None:
    context = _context(0, 1.0)
    assert take_back_fewest((), tuple(HARM), tuple, context).agreement is None  # type: ignore[arg-type]
    context.samples = None
    assert not take_back_fewest((), tuple(HARM), tuple, context).taken_back  # type: ignore[arg-type]
    assert take_back_fewest((), (), tuple, _context(2, 1.0)).samples == 0  # type: ignore[arg-type]
