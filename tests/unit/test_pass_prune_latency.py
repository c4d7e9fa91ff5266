"""prune_channels.latency: by a fake clock what saves nothing stays, noise removes nothing, and targets in time are reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import edgewright as ew
from edgewright.bench.stopwatch import Stopwatch
from edgewright.compress import compress
from edgewright.contracts import Role, Sample, TimeRatio, evenly
from edgewright.errors import EdgewrightError
from edgewright.graph import channels, cost
from edgewright.memo import Memo
from edgewright.model import Model
from edgewright.recipe import Recipe
from edgewright.target import Target

SIDE, WIDE = 8, 64


@dataclass
class Drawn:
    """Random arrays; every third selects, the others calibrate."""

    chosen: tuple[int, ...] = tuple(range(24))

    def __len__(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[Sample]:
        for index in self.chosen:
            array = np.random.default_rng(index).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
            yield Sample(f"sample-{index}", f"{index:064x}", {"x": array})

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(f"{index:064x}" for index in self.chosen)

    def role(self, *roles: Role) -> Drawn:
        return Drawn(tuple(index for index in self.chosen if ("select" if index % 3 == 2 else "calibrate") in roles))

    def spread(self, most: int) -> Drawn:
        return Drawn(tuple(self.chosen[at] for at in evenly(len(self), most)))


@pytest.fixture(scope="module")
def model() -> Model:
    """Two wide layers between narrow ones that an output shows: two groups of channels, `a` and `b`, alike but by name."""
    random = np.random.default_rng(0)
    graph = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        g (float[1,3,{SIDE},{SIDE}] x) => (float[1,4,{SIDE},{SIDE}] y, float[1,3,{SIDE},{SIDE}] z)
        {{
          a = Conv (x, wa)
          ra = Relu (a)
          z = Conv (ra, va)
          b = Conv (z, wb)
          rb = Relu (b)
          y = Conv (rb, vb)
        }}"""
    )
    shapes = {"wa": (WIDE, 3, 1, 1), "va": (3, WIDE, 1, 1), "wb": (WIDE, 3, 1, 1), "vb": (4, WIDE, 1, 1)}
    for value in [v for node in graph.graph for v in node.inputs if v is not None]:
        if value.name in shapes and value.name not in graph.graph.initializers:
            array = random.standard_normal(shapes[value.name]).astype(np.float32)
            value.const_value = ir.tensor(array, name=value.name)
            value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.FLOAT
            graph.graph.register_initializer(value)
    return Model(graph, name="two")


@dataclass
class FakeClock:
    """Time is a sum over layers of MACs times a price; noise is told as an interval, or instead of the truth.

    Attributes:
        prices: By the start of a layer's name, what its multiply-adds cost; 1 where not said.
        base: Time that nothing removes, as a share.
        noise: Standard deviation of what is told; intervals hold twice as much.
        asked: How many networks were measured.
    """

    prices: Mapping[str, float] = field(default_factory=dict)
    base: float = 0.0
    noise: float = 0.0
    label: str = "fake"
    asked: int = 0
    rng: Any = field(default_factory=lambda: np.random.default_rng(7))

    def time(self, network: Model) -> float:
        return sum(self.prices.get(layer.name, 1.0) * (layer.macs or 0) for layer in cost.layers(network.ir))

    def ratios(self, model: Model, variants: Mapping[str, Model]) -> dict[str, TimeRatio]:
        self.asked += len(variants)
        found = {}
        for name, variant in variants.items():
            true = self.base + (1 - self.base) * self.time(variant) / self.time(model)
            value = true + self.noise * float(np.clip(self.rng.standard_normal(), -1.9, 1.9))
            found[name] = TimeRatio(value, value - 2 * self.noise, value + 2 * self.noise)
        return found


def recipe(options: dict[str, Any], *then: dict[str, Any]) -> Recipe:
    return Recipe.from_mapping("r", {"steps": [{"pass": "prune_channels", **options}, *then]})


def widths(small: Model) -> dict[str, int]:
    stats = next(step.stats for step in small.history if step.name == "prune_channels")
    return {item["group"]: item["width"][1] for item in stats["groups"]}


def test_the_target_is_reached_in_measured_time(model: Model) -> None:
    clock = FakeClock(base=0.2)
    small = compress(model, recipe({"latency": 0.6}), Drawn(), clock=clock)
    left = clock.ratios(model, {"small": small})["small"].value
    assert 0.5 < left <= 0.606
    remains = small.history[-1].stats["remains"]
    assert remains["latency"] == pytest.approx(left)
    assert remains["macs"] < remains["latency"]  # by MACs alone 0.6 would have looked reached much earlier


def test_a_group_whose_removal_saves_nothing_is_never_pruned(model: Model) -> None:
    clock = FakeClock(prices={"a": 0.0, "z": 0.0})
    small = compress(model, recipe({"latency": 0.5}), Drawn(), clock=clock)
    assert widths(small)["a"] == WIDE
    assert widths(small)["b"] < WIDE
    assert widths(compress(model, recipe({"macs": 0.5}), Drawn()))["a"] < WIDE  # MACs alone would have taken it


def test_a_clock_that_tells_noise_prunes_nothing(model: Model) -> None:
    clock = FakeClock(prices=dict.fromkeys("azby", 1.0), base=1.0, noise=0.05)
    with pytest.raises(EdgewrightError, match="of 2 groups, 0 save time") as caught:
        compress(model, recipe({"latency": 0.9}), Drawn(), clock=clock)
    assert caught.value.code == "E103"


def test_a_target_out_of_reach_is_refused_before_anything_is_learnt(model: Model) -> None:
    clock = FakeClock(base=0.9)
    with pytest.raises(EdgewrightError, match=r"at least 0\.9") as caught:
        compress(model, recipe({"latency": 0.3}), Drawn(), clock=clock)
    assert caught.value.code == "E103"


def test_without_a_clock_a_target_in_time_says_what_to_do(model: Model) -> None:
    with pytest.raises(EdgewrightError, match="needs a clock") as caught:
        compress(model, recipe({"latency": 0.6}), Drawn())
    assert caught.value.code == "E103"
    assert "prune_channels.macs=" in (caught.value.hint or "")


def test_a_target_of_the_caller_takes_the_place_of_the_recipes(model: Model) -> None:
    over = {"prune_channels": {"latency": "0.7"}}
    small = compress(model, recipe({"macs": 0.75}), Drawn(), clock=FakeClock(), overrides=over)
    assert small.history[-1].config["macs"] is None
    with pytest.raises(EdgewrightError, match="give one"):
        compress(model, recipe({"macs": 0.75, "latency": 0.7}), Drawn(), clock=FakeClock())


def test_the_clock_sees_networks_as_they_are_after_the_steps_that_follow(model: Model) -> None:
    seen: list[str] = []

    class Looking(FakeClock):
        def time(self, network: Model) -> float:
            seen.append(network.precision)
            return super().time(network) or float(
                sum(v.const_value.size for v in network.ir.graph.initializers.values())
            )

    compress(
        model, recipe({"latency": 0.8}, {"pass": "quantize_static"}), Drawn(), clock=Looking(), last="prune_channels"
    )
    assert set(seen) == {"int8"}


def test_what_was_found_out_is_not_found_out_again(model: Model, tmp_path: Path) -> None:
    clock, memo = FakeClock(), Memo(tmp_path)
    first = compress(model, recipe({"latency": 0.7}), Drawn(), clock=clock, memo=memo)
    asked, clock.asked = clock.asked, 0
    again = compress(model, recipe({"latency": 0.5}), Drawn(), clock=clock, memo=memo)
    assert clock.asked < asked - 3  # only the allocations themselves, not the groups
    assert first.history[-1].samples == again.history[-1].samples  # what is remembered was learnt from samples too
    other = compress(model, recipe({"latency": 0.5}), Drawn(), clock=FakeClock())
    assert widths(other) == widths(again)


def test_ratios_make_the_same_network_as_the_target_they_come_from(model: Model) -> None:
    small = compress(model, recipe({"latency": 0.6}), Drawn(), clock=FakeClock())
    stats = small.history[-1].stats["groups"]
    ratios = {item["group"]: 1 - item["width"][1] / item["width"][0] for item in stats}
    given = compress(model, recipe({"spread": "given", "ratios": ratios}), Drawn())
    assert given.hash == small.hash


def test_the_stopwatch_measures_on_the_runtime(model: Model) -> None:
    wide = compress(model, recipe({"spread": "given", "ratios": {"a": 0.5, "b": 0.5}}), Drawn())
    found = Stopwatch(Target(), Drawn(), seconds=0.1).ratios(model, {"same": model, "small": wide})
    assert set(found) == {"same", "small"}
    assert all(0 < item.low <= item.value <= item.high for item in found.values())
    assert Stopwatch.can_measure(Target())
    assert not Stopwatch.can_measure(Target(cpu="armv8.2-dotprod")) or ew.Target(cpu="host").has("asimd")


def test_real_weights_lose_channels_where_time_is_saved_and_still_answer(tmp_path: Path) -> None:
    from PIL import Image

    random = np.random.default_rng(1)
    for index in range(12):
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
        coarse.resize((128, 96), Image.Resampling.BICUBIC).save(tmp_path / f"{index}.png")
    scenes = ew.load(Path(__file__).resolve().parents[2] / "examples" / "segmentation" / "scenes.onnx")
    samples = ew.Samples.open(tmp_path, scenes, roles="calibrate")
    groups = ("getitem_15", "getitem_51", "getitem_78")
    others = [group.name for group in channels.find(scenes.ir).groups if group.name not in groups]
    clock = FakeClock(prices={"getitem_15": 0.0, "getitem_21": 0.0, "getitem_18": 0.0})
    over = {"prune_channels": {"keep": others, "latency": 0.96, "max_trials": 4}}
    small = compress(scenes, "prune", samples, clock=clock, overrides=over)
    left = widths(small)
    assert left["getitem_15"] == 144  # of the three it computes most, and saves nothing
    assert min(left["getitem_51"] / 240, left["getitem_78"] / 288) < 1
    with ew.open(scenes) as one, ew.open(small) as other:
        arrays = [sample.arrays for sample in samples]
        same = [one.run(x)["scores"].argmax(1) == other.run(x)["scores"].argmax(1) for x in arrays[:6]]
    assert np.mean(same) > 0.95
