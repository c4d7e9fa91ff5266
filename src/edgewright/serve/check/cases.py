"""Cases: what is asked of a server, what is wanted, and what came."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewright.serve.protocol.datatypes import dtype_of

#: Answers to equal inputs over different encodings: texts round floats, and batches may sum in another order.
SAME_RELATIVE, SAME_ABSOLUTE = 1e-4, 1e-5


class WrongError(Exception):
    """What came is not what was wanted; its text says what came."""


@dataclass(frozen=True)
class Outcome:
    """A line of the table.

    Attributes:
        transport: "http" or "grpc".
        case: What was asked.
        wanted: What the protocol wants.
        got: What came.
        ok: Whether that is it.
    """

    transport: str
    case: str
    wanted: str
    got: str
    ok: bool


@dataclass(frozen=True)
class Tensor:
    """An input or output as the server describes it; open sizes are -1."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass
class Subject:
    """The model that is asked, and what it answers.

    Attributes:
        model: Its name.
        versions: Numbers of its versions as text; perhaps none.
        inputs: As described.
        outputs: As described.
        arrays: An input of each.
        answer: The outputs for these, once they are known.
    """

    model: str
    versions: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    arrays: dict[str, np.ndarray]
    answer: dict[str, np.ndarray]

    @staticmethod
    def of(model: str, document: Mapping[str, Any]) -> Subject:
        """A subject from the model's metadata, with inputs of one row: small numbers, and texts.

        Raises:
            WrongError: It is described without inputs or outputs. KeyError, TypeError, ValueError: As nothing of the kind.
        """
        sides = []
        for side in ("inputs", "outputs"):
            sides.append(
                tuple(
                    Tensor(str(entry["name"]), str(entry["datatype"]), tuple(int(size) for size in entry["shape"]))
                    for entry in document[side]
                )
            )
        if not all(sides):
            raise WrongError(f"model `{model}` is described without inputs or outputs")
        chance = np.random.default_rng(0)
        arrays = {tensor.name: _example(tensor, chance) for tensor in sides[0]}
        versions = tuple(str(version) for version in document.get("versions") or ())
        return Subject(model, versions, sides[0], sides[1], arrays, {})

    def compare(self, outputs: Mapping[str, np.ndarray]) -> str:
        """ "the same answer", for outputs that are.

        Raises:
            WrongError: They are not.
        """
        if not self.answer:
            raise WrongError("nothing to compare with: the plain request failed")
        if set(outputs) != set(self.answer):
            raise WrongError(f"outputs {sorted(outputs)}, not {sorted(self.answer)}")
        for name, expected in self.answer.items():
            found = outputs[name]
            if found.shape != expected.shape:
                raise WrongError(f"`{name}` of shape {list(found.shape)}, not {list(expected.shape)}")
            if expected.dtype.kind == "O":
                same = np.array_equal(found, expected)
            else:
                a, b = found.astype(np.float64), expected.astype(np.float64)
                same = np.allclose(a, b, rtol=SAME_RELATIVE, atol=SAME_ABSOLUTE, equal_nan=True)
            if not same:
                raise WrongError(f"`{name}` holds other values")
        return "the same answer"


def run(transport: str, cases: Mapping[str, tuple[str, Callable[[], str]]]) -> list[Outcome]:
    """Every case's outcome; whatever one raises is what came."""
    outcomes = []
    for case, (wanted, ask) in cases.items():
        try:
            got, ok = ask(), True
        except WrongError as problem:
            got, ok = str(problem), False
        except Exception as problem:  # a server may answer anything
            got, ok = f"{type(problem).__name__}: {problem}", False
        shown = "".join(char if char.isprintable() else " " for char in got[:200])  # a server's text goes to a terminal
        outcomes.append(Outcome(transport, case, wanted, shown, ok))
    return outcomes


def _example(tensor: Tensor, chance: np.random.Generator) -> np.ndarray:
    shape = tuple(size if size > 0 else 1 for size in tensor.shape)
    dtype = dtype_of(tensor.datatype)
    if dtype.kind == "O":
        return np.full(shape, "a", object)
    if dtype.kind == "b" or dtype.kind in "iu":
        return chance.integers(0, 2, shape).astype(dtype)  # 0 and 1 are in the range of any index
    return chance.standard_normal(shape).astype(dtype)
