"""Options: text and typed values into dataclasses and back, with errors that name the option."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.errors import EdgewrightError
from edgewright.options import build, dump


@dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True)
class Config:
    bits: int = 8
    rate: float = 0.5
    on: bool = False
    name: str = "x"
    kind: Literal["a", "b", 3] = "a"
    sizes: tuple[int, ...] = ()
    pair: tuple[int, float] = (1, 2.0)
    names: list[str] = field(default_factory=list)
    maybe: int | None = None
    either: int | str = 0
    path: Path | None = None
    table: Mapping[str, float] = field(default_factory=dict)
    inner: Inner = Inner()
    inners: tuple[Inner, ...] = ()
    pairs: tuple[tuple[int, float], ...] = ()
    anything: Any = None


@dataclass(frozen=True)
class Needy:
    size: int


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        ({"bits": "7"}, {"bits": 7}),
        ({"bits": 7.0}, {"bits": 7}),
        ({"rate": "1e-3"}, {"rate": 1e-3}),
        ({"rate": 2}, {"rate": 2.0}),
        ({"on": "yes"}, {"on": True}),
        ({"on": "OFF"}, {"on": False}),
        ({"kind": "b"}, {"kind": "b"}),
        ({"sizes": "1,2,3"}, {"sizes": (1, 2, 3)}),
        ({"sizes": [1, "2"]}, {"sizes": (1, 2)}),
        ({"sizes": 4}, {"sizes": (4,)}),
        ({"sizes": ""}, {"sizes": ()}),
        ({"pair": "3,4"}, {"pair": (3, 4.0)}),
        ({"names": ["a", "b"]}, {"names": ["a", "b"]}),
        ({"maybe": "none"}, {"maybe": None}),
        ({"maybe": "5"}, {"maybe": 5}),
        ({"either": "abc"}, {"either": "abc"}),
        ({"path": "a/b"}, {"path": Path("a/b")}),
        ({"table": {"x": "1"}}, {"table": {"x": 1.0}}),
        ({"inner": {"depth": "2"}}, {"inner": Inner(2)}),
        ({"inner": Inner(3)}, {"inner": Inner(3)}),
        ({"inners": [{"depth": "2"}, Inner(3), {}]}, {"inners": (Inner(2), Inner(3), Inner())}),
        ({"pairs": [[1, 2], ["3", "4.5"]]}, {"pairs": ((1, 2.0), (3, 4.5))}),
        ({"anything": [1, {}]}, {"anything": [1, {}]}),
    ],
)
def test_values_are_parsed_by_type(given_value: dict[str, Any], expected: dict[str, Any]) -> None:
    assert build(Config, given_value, where="p") == Config(**expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bit": 7}, "`p` has no option `bit`; did you mean `bits`"),
        ({"zzz": 7}, "`p` has no option `zzz`; it takes: `bits`"),
        ({"bits": "seven"}, r"option `p\.bits` is 'seven', but must be a whole number"),
        ({"bits": 7.5}, "must be a whole number"),
        ({"bits": True}, "must be a number"),
        ({"bits": None}, "must be a number"),
        ({"rate": "fast"}, "must be a number"),
        ({"on": "maybe"}, "must be true or false"),
        ({"name": 3}, "must be a str"),
        ({"kind": "c"}, "must be one of 'a', 'b', 3"),
        ({"pair": "1,2,3"}, "must be 2 values"),
        ({"sizes": "1,x"}, "must be a whole number"),
        ({"table": 3}, "must be a table"),
        ({"inner": 3}, "must be a table"),
        (
            {"inners": [{"depth": 1}, {"depth": "x"}]},
            r"option `p\.inners\[1\]\.depth` is 'x', but must be a whole number",
        ),
        ({"inners": "depth"}, r"option `p\.inners\[0\]` is 'depth', but must be a table"),
        ({"pairs": [[1, 2], [3]]}, r"option `p\.pairs\[1\]` is \[3\], but must be 2 values"),
        ({"inner": {"deep": 1}}, r"`p\.inner` has no option `deep`"),
    ],
)
def test_wrong_values_name_the_option(values: dict[str, Any], message: str) -> None:
    with pytest.raises(EdgewrightError, match=message) as caught:
        build(Config, values, where="p")
    assert caught.value.code == "E103"


@pytest.mark.parametrize("values", [None, 3, "bits=7", ["bits"]])
def test_options_must_be_a_table(values: Any) -> None:
    with pytest.raises(EdgewrightError, match="must be a table of options"):
        build(Config, values, where="p")


@pytest.mark.parametrize("value", ["inf", "nan", float("inf"), float("nan"), "1e400"])
def test_a_whole_number_is_never_infinite(value: Any) -> None:
    with pytest.raises(EdgewrightError) as caught:
        build(Config, {"bits": value}, where="p")
    assert caught.value.code == "E103"


def test_a_missing_option_is_named_with_the_command() -> None:
    with pytest.raises(EdgewrightError, match="`p` needs the option `size`") as caught:
        build(Needy, {}, where="p")
    assert caught.value.hint == "--set p.size=VALUE"


@given(
    st.builds(
        Config, bits=st.integers(), rate=st.floats(allow_nan=False), on=st.booleans(), name=st.text(),
        sizes=st.lists(st.integers()).map(tuple), names=st.lists(st.text()), maybe=st.none() | st.integers(),
        table=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
        inner=st.builds(Inner, st.integers()), inners=st.lists(st.builds(Inner, st.integers())).map(tuple),
        pairs=st.lists(st.tuples(st.integers(), st.floats(allow_nan=False, allow_infinity=False))).map(tuple),
    )
)  # fmt: skip
def test_dump_and_build_are_inverse(config: Config) -> None:
    assert build(Config, dump(config), where="p") == config
    finite = json.loads(json.dumps(dump(config)))
    assert build(Config, finite, where="p") == config
