"""The page's section on quantization: what a pass tells is shown, what it does not is a dash, and nothing breaks it."""

from __future__ import annotations

import dataclasses
import html
import html.parser
import json
import math
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.bundle import MANIFEST, Bundle
from edgewright.compress import compress
from edgewright.model import Model, Step
from edgewright.recipe import Recipe
from edgewright.records import Candidate, DeployOutcome, Environment
from edgewright.report import quantization, render
from edgewright.report.quantization import MOST_LAYERS, MOST_PARTS, Part, Range, parts, words
from edgewright.report.quantization.chart import chart
from edgewright.report.quantization.table import columns
from edgewright.samples import Samples
from edgewright.spec import Spec

TITLE = "Quantization, layer by layer"
HOSTILE = "</title></svg><script>alert('1')</script>\"&`{{ 7*7 }}`"
JUNK: list[Any] = [
    None,
    "text",
    math.nan,
    math.inf,
    -math.inf,
    True,
    [],
    {},
    [[1]],
    {"low": {}},
    10**400,
    -(2**70),
    "\x00\ud800",
]


def span(low: float, high: float, **others: Any) -> dict[str, Any]:
    return {
        "tensor": "t", "low": low, "high": high, "seen_low": 1.5 * low, "seen_high": 1.25 * high, "method": "mse",
        "clipped": 0.0031, "sqnr_db": 41.0, **others,
    }  # fmt: skip


def layer(name: str, **others: Any) -> dict[str, Any]:
    return {
        "name": name, "node": f"{name}/node", "op": "Conv", "state": "int8", "reason": "", "weights": 1000,
        "weight_bits": 7, "input": span(-1.2, 6.0), "output": None, "weight_sqnr_db": 38.0,
        "rounding_before_db": 30.1, "rounding_after_db": 36.0, "bias_before": 0.012, "bias_after": 0.0004,
        "activation_db": 40.0, "sensitivity_db": 50.0, **others,
    }  # fmt: skip


def stats(*layers: Any, **others: Any) -> dict[str, Any]:
    return {
        "format": {
            "activation_dtype": "uint8", "activation_symmetric": False, "weight_bits": 7, "per_channel": True,
            "reason": "this CPU has no VNNI",
        },
        "layers": list(layers), "tensors": {}, "kept": [], "select": None, **others,
    }  # fmt: skip


def step(told: Mapping[str, Any], name: str = "quantize_static", config: Mapping[str, Any] | None = None) -> Step:
    return Step(kind="pass", name=name, config={"keep": []} if config is None else config, lossy=True, stats=told)


def deployed(run: Path, *histories: tuple[Step, ...], state: str = "verified") -> DeployOutcome:
    """A run in folder `run` whose candidates have these histories; the first is chosen where `state` is "verified"."""
    items = []
    for number, history in enumerate(histories):
        name = f"int8-runtime{number}"
        bundle = Bundle(
            path=run / "bundles" / name, name=name, runtime=f"runtime{number}", runtime_version="1", precision="int8",
            spec=Spec(), inputs=(), outputs=(), tensor_names={}, files={}, history=history,
        )  # fmt: skip
        bundle.path.mkdir(parents=True)
        (bundle.path / MANIFEST).write_text(json.dumps(bundle.to_json()), encoding="utf-8")
        items.append(
            Candidate(
                name=name, recipe="int8", runtime=bundle.runtime, state=state, reason="", bundle=f"bundles/{name}"  # type: ignore[arg-type]
            )
        )  # fmt: skip
    return DeployOutcome(
        model_name="net", origin="a" * 64, chosen=None, candidates=tuple(items), speedup=None,
        budget={"min_agreement": 0.98, "max_drop": None}, threads=1, samples={}, skipped=(),
        command="edgewright deploy net.onnx --samples photos", seed=0, environment=Environment.here(),
    )  # fmt: skip


def only(run: Path, told: Mapping[str, Any], **others: Any) -> Part:
    (part,) = parts(deployed(run, (step(told, **others),)), run)
    return part


class _Balanced(html.parser.HTMLParser):
    VOID = frozenset({"meta", "br", "i", "rect", "line", "circle", "polyline", "polygon", "wbr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        if tag not in self.VOID - {"i"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID - {"i"}:
            assert self.open.pop() == tag


def sound(page: str) -> str:
    """The page, once it is balanced, without scripts, and its charts hold finite numbers only."""
    _Balanced(page)
    assert page.encode()
    for picture in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        for tag in re.findall(r"<(?:rect|line|circle|polygon|text)\b[^>]*>", picture):
            assert not re.search(r"""="[^"]*\b(?:nan|inf)\b""", tag), tag
            assert not re.search(r"""(?:width|height|r)="-""", tag), tag
    return page


class TestPage:
    def test_shows_each_layer_before_and_after(self, tmp_path: Path) -> None:
        told = stats(
            layer("/stem/out", sensitivity_db=44.0, output=span(-2.0, 2.0)),
            layer("/head/out", state="float", reason="asked for", sensitivity_db=20.0),
            kept=["/head/out"],
            select={
                "samples": 30,
                "required": 0.98,
                "steps": [{"kept": 0, "agreement": 0.96}, {"kept": 1, "agreement": 1.0}],
            },
        )
        page = html.unescape(sound(render(deployed(tmp_path, (step(told),)), tmp_path))).replace("<wbr>", "")
        for text in (
            TITLE,
            "Format: uint8 activations, 7-bit weights, one weight scale per output channel: this CPU has no VNNI.",
            "1 of 2 layers in int8",
            "In float: <code>/head/out</code> (asked for).",
            "On 30 select samples the answers agree with the original's: 96.0 % with none in float, "
            "100 % with 1 in float (98.0 % asked for).",
            "30.1 → 36.0",
            "0.012 → 0.0004",
            "−1.2 to 6",
            "seen −1.8 to 7.5, mse",
            "0.31 %",
            "output 0.31 %",
            "weights 38.0",
            "input 41.0",
            "edgewright deploy net.onnx --samples photos --set quantize_static.keep=/stem/out",
        ):
            assert text in page, text

    def test_absent_without_quantized_candidates(self, tmp_path: Path) -> None:
        lossless = Step(kind="pass", name="fold_batchnorm", stats={"folded": 3})
        page = render(deployed(tmp_path, (lossless,)), tmp_path)
        assert TITLE not in page

    @pytest.mark.parametrize("layers", [[], None, "text", {}, 3, [None, 1, "x"], [[]], [{"name": "a", "weights": 3}]])
    def test_absent_without_layers(self, layers: Any, tmp_path: Path) -> None:
        page = render(deployed(tmp_path, (step({"layers": layers}),)), tmp_path)
        assert TITLE not in page

    def test_equal_results_share_one_part_and_the_chosen_comes_first(self, tmp_path: Path) -> None:
        one, two = stats(layer("a")), stats(layer("b"))
        outcome = deployed(tmp_path, (step(one),), (step(two),), (step(two),))
        outcome = dataclasses.replace(outcome, chosen="int8-runtime1")
        found = parts(outcome, tmp_path)
        assert [[item.name for item in part.items] for part in found] == [
            ["int8-runtime1", "int8-runtime2"],
            ["int8-runtime0"],
        ]

    def test_only_the_first_part_is_open_and_there_are_few(self, tmp_path: Path) -> None:
        outcome = deployed(tmp_path, *((step(stats(layer(f"layer{i}"))),) for i in range(MOST_PARTS + 2)))
        page = sound(render(outcome, tmp_path))
        assert page.count("<details open><summary><b>") == 1
        assert page.count("<summary><b>int8-runtime") == MOST_PARTS
        assert "2 more: their layers are in the bundle.json" in page

    def test_a_bundle_that_is_gone_or_altered_costs_its_part_only(self, tmp_path: Path) -> None:
        outcome = deployed(tmp_path, *((step(stats(layer(name))),) for name in "abc"))
        (tmp_path / "bundles/int8-runtime0" / MANIFEST).unlink()
        manifest = tmp_path / "bundles/int8-runtime1" / MANIFEST
        manifest.write_text(manifest.read_text().replace("38.0", "99.0"))
        assert [part.layers[0].name for part in parts(outcome, tmp_path)] == ["c"]

    def test_another_machines_bundle_makes_no_warning(self, tmp_path: Path) -> None:
        outcome = deployed(tmp_path, (step(stats(layer("a"))),))
        path = tmp_path / "bundles/int8-runtime0"
        bundle = dataclasses.replace(Bundle.open(path), cpu_features=("no_such_feature",))
        (path / MANIFEST).write_text(json.dumps(bundle.to_json()), encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(parts(outcome, tmp_path)) == 1


class TestAnythingGoes:
    def test_hostile_names_are_text(self, tmp_path: Path) -> None:
        told = stats(
            *(
                layer(HOSTILE, node=HOSTILE, op=HOSTILE, reason=HOSTILE, state=state)
                for state in ("int8", "float", HOSTILE)
            ),
            kept=[HOSTILE, HOSTILE + "2"],
        )
        told["format"]["reason"] = told["format"]["activation_dtype"] = HOSTILE
        told["layers"][0][HOSTILE] = HOSTILE
        told["layers"][0]["input"]["method"] = HOSTILE
        page = sound(render(deployed(tmp_path, (step(told, name=HOSTILE),)), tmp_path))
        assert "<script" not in page
        assert "49" not in re.findall(r"<code>([^<]*)</code>", page)

    @pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk)[:20])
    def test_any_value_may_be_junk(self, junk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        good = stats(layer("a"), layer("b"))
        for key in good["layers"][0]:
            good["layers"].append({**layer(f"bad {key}"), key: junk})
        for key in good["layers"][0]["input"]:
            good["layers"].append(layer(f"bad input {key}", input={**span(-1.0, 1.0), key: junk}))
        good["layers"].append(junk)
        steps = [step(good)]
        for key in (
            "format",
            "layers",
            "weights",
            "kept",
            "select",
            "tensors",
            "float",
            "bytes",
            "agreement",
            "weight_bits",
        ):
            steps.append(step({**good, key: junk}))
        for key in good["format"]:
            steps.append(step({**good, "format": {**good["format"], key: junk}}))
        for key in ("samples", "steps", "agreement_before", "agreement_after", "required"):
            steps.append(step({**good, "select": {"samples": 3, "agreement_after": 1.0, key: junk}}))
        steps.append(step({**good, "select": {"steps": [junk, {"kept": junk, "agreement": junk}]}}))
        steps.append(step(good, config={"keep": junk}))
        monkeypatch.setattr(quantization, "MOST_PARTS", len(steps))
        page = sound(render(deployed(tmp_path, *((one,) for one in steps)), tmp_path))
        assert page.count("<summary><b>") > len(steps) / 2  # without layers there is no part, equal ones share theirs
        assert "nan" not in re.sub(r"<style>.*?</style>|<code>.*?</code>", "", page, flags=re.DOTALL).lower().split()

    def test_every_layer_may_be_empty(self, tmp_path: Path) -> None:
        told = {"layers": [{"weight_bits": None}, {}]}
        page = sound(render(deployed(tmp_path, (step(told),)), tmp_path))
        assert "layer 1" in page
        assert "All 2 layers" in page
        assert "<svg" not in page
        assert "What hurts most" not in page

    def test_a_missing_number_is_a_dash(self, tmp_path: Path) -> None:
        part = only(tmp_path, stats(layer("a"), layer("b", activation_db=None, input=None, bias_after=math.nan)))
        table = {column.title: [cell.text for cell in column.cells] for column in columns(part)}
        assert table["activations, dB"] == ["40.0", "–"]
        assert table["input range"] == ["−1.2 to 6", "–"]
        assert table["mean shift"] == ["0.012 → 0.0004", "0.012"]
        assert "output range" not in table  # nobody tells it

    def test_no_noise_at_all_is_exact(self, tmp_path: Path) -> None:
        exact = {"rounding_after_db": math.inf, "activation_db": math.inf, "sensitivity_db": math.inf}
        part = only(tmp_path, stats(layer("a", **exact), layer("b", **exact)))
        assert part.worst == ()
        assert part.layers[0].error_db == math.inf
        assert words.cause(part.layers[0]).startswith("its weights and input alike (weights exact, input exact)")
        assert chart(part) is not None

    def test_one_constant_activation(self, tmp_path: Path) -> None:
        part = only(tmp_path, stats(layer("a", input=span(0.0, 0.0)), layer("b", input=span(1e-300, 1e300))))
        sound(str(chart(part)))

    @pytest.mark.parametrize("count", [2, 3, 150])
    def test_chart_has_one_column_for_each_layer(self, count: int, tmp_path: Path) -> None:
        picture = str(chart(only(tmp_path, stats(*(layer(f"l{i}", sensitivity_db=40.0 + i) for i in range(count))))))
        assert picture.count('class="hit"') == count
        assert picture.count('class="q worst"') == min((count + 1) // 2, 5)
        widths = [float(width) for width in re.findall(r'class="alone"[^>]*width="([\d.]+)"', picture)]
        assert len(widths) == count
        assert max(widths) <= 34  # a single layer is no wall

    def test_a_thousand_layers_stay_readable(self, tmp_path: Path) -> None:
        rows = [layer(f"/block{i}/" + "x" * 500, sensitivity_db=90.0 - i % 50) for i in range(1000)]
        rows[700] = layer("/the/worst", sensitivity_db=3.0)
        rows[800] = layer("/kept", state="float", reason="asked for", sensitivity_db=80.0)
        page = sound(render(deployed(tmp_path, (step(stats(*rows)),)), tmp_path))
        assert len(page) < 1_000_000
        assert page.count('class="hit"') == MOST_LAYERS
        assert f"The {MOST_LAYERS} of 1000 layers that matter most" in page
        assert "bundles/int8-runtime0/bundle.json" in page
        part = parts(deployed(tmp_path / "again", (step(stats(*rows)),)), tmp_path / "again")[0]
        assert {701, 801} <= {shown.index for shown in part.shown}
        assert [one.index for one in part.shown] == sorted(one.index for one in part.shown)


class TestWorst:
    def test_by_sensitivity_and_never_a_layer_in_float(self, tmp_path: Path) -> None:
        told = stats(
            layer("a", sensitivity_db=40.0),
            layer("b", sensitivity_db=30.0),
            layer("c", state="float", sensitivity_db=10.0),
        )
        part = only(tmp_path, told)
        assert [one.name for one in part.worst] == ["b"]
        assert part.by_sensitivity

    def test_by_own_error_where_sensitivity_is_not_known(self, tmp_path: Path) -> None:
        told = stats(
            layer("a", sensitivity_db=None, rounding_after_db=30.0, activation_db=60.0),
            layer("b", sensitivity_db=None, rounding_after_db=40.0, activation_db=20.0),
        )
        part = only(tmp_path, told)
        assert [one.name for one in part.worst] == ["b"]
        assert part.layers[0].error_db == pytest.approx(-10 * math.log10(1e-3 + 1e-6))

    def test_cause_and_remedy_in_words(self, tmp_path: Path) -> None:
        told = stats(
            layer("a", rounding_after_db=25.0, activation_db=40.0, bias_after=-0.3),
            layer("b", rounding_after_db=50.0, activation_db=20.0, input=span(-1.0, 1.0, clipped=0.02)),
            layer(
                "c",
                weight_sqnr_db=None,
                rounding_before_db=None,
                rounding_after_db=None,
                activation_db=None,
                input=None,
            ),
        )
        first, second, third = only(tmp_path, told).layers
        assert words.cause(first).startswith("mostly its rounded weights (weights 25.0 dB, input 40.0 dB)")
        assert words.cause(first).endswith("its output's mean is off by −0.3 of its spread")
        assert words.cause(second) == (
            "mostly its rounded input (input 20.0 dB, weights 50.0 dB); 2.0 % of its input is clipped to −1 to 1"
        )
        assert words.cause(third) == "no single cause stands out"
        assert words.remedy(first) == "rounding 30.1 → 25.0 dB; mean shift 0.012 → −0.3; range −1.8 to 7.5 → −1.2 to 6"

    def test_what_a_layer_makes_is_found_among_the_tensors(self, tmp_path: Path) -> None:
        told = stats(layer("a"), layer("b"), tensors={"a": span(-1.0, 1.0, sqnr_db=22.0, clipped=0.0)})
        part = only(tmp_path, told)
        assert part.layers[0].output == Range(
            low=-1.0, high=1.0, seen_low=-1.5, seen_high=1.25, clipped=0.0, sqnr_db=22.0, method="mse"
        )
        assert part.layers[1].output is None
        assert words.cause(part.layers[0]).startswith("mostly its rounded output (output 22.0 dB, weights 36.0 dB")

    def test_a_range_that_only_rounding_moved_is_as_seen(self, tmp_path: Path) -> None:
        same = span(0.0, 6.0, seen_low=0.0, seen_high=6.0000001)
        assert words.remedy(only(tmp_path, stats(layer("a", input=same))).layers[0]).endswith("range as seen")

    def test_advice_goes_on_from_what_was_asked_for(self, tmp_path: Path) -> None:
        part = only(tmp_path, stats(layer("my layer")), config={"keep": ["/head"]})
        outcome = deployed(tmp_path / "other")
        assert words.advice(part, outcome) == f"{outcome.command} --set quantize_static.keep='/head,my layer'"
        assert (words.advice(part, dataclasses.replace(outcome, command="")) or "").startswith(
            "edgewright deploy MODEL --set"
        )

    @pytest.mark.parametrize("name", ["a,b", "a\nb", "x" * 1000, "\x1b[31m"])
    def test_no_advice_that_a_shell_would_read_otherwise(self, name: str, tmp_path: Path) -> None:
        assert words.advice(only(tmp_path, stats(layer(name))), deployed(tmp_path / "other")) is None

    def test_no_advice_without_the_option(self, tmp_path: Path) -> None:
        assert words.advice(only(tmp_path, stats(layer("a")), config={}), deployed(tmp_path / "other")) is None


def test_other_passes_get_a_table_of_what_they_tell(tmp_path: Path) -> None:
    rows = [
        {
            "name": "/lstm",
            "op": "LSTM",
            "state": "int4",
            "bits": 4,
            "block": 32,
            "bytes_before": 4096,
            "exact": False,
            "x": [],
        },
        {"name": "/head", "op": "MatMul", "state": "int8", "bits": 8, "bytes_before": 123456, "note": "per channel"},
    ]
    part = only(tmp_path, {"layers": rows}, name="quantize_weights", config={})
    table = {column.title: [cell.text for cell in column.cells] for column in columns(part)}
    assert table == {
        "block": ["32", "–"],
        "bytes before": ["4,096", "123,456"],
        "exact": ["no", "–"],
        "note": ["–", "per channel"],
    }
    assert words.headline(part) == "all 2 layers in int4 and int8"
    assert words.about(part.layers[0], part) == "LSTM · 4 bit"
    assert chart(part) is None


@pytest.mark.parametrize("recipe", ["int8", "int8-dynamic", "size"])
def test_what_the_built_in_passes_tell_is_understood(
    recipe: str, tmp_path: Path, rng: np.random.Generator, model_from_text: Callable[..., Model]
) -> None:
    numbers = ", ".join(f"{value:.4f}" for value in rng.normal(size=64 * 32))
    model = model_from_text(
        f"""<ir_version: 10, opset_import: ["" : 21]> net (float[1,32] x) => (float[1,64] scores)
        <float[32,64] first = {{{numbers}}}, float[64,32] second = {{{numbers}}}, float[32,64] third = {{{numbers}}}>
        {{ a = MatMul(x, first) b = Relu(a) c = MatMul(b, second) d = Relu(c) scores = MatMul(d, third) }}"""
    )
    np.savez(tmp_path / "x.npz", x=rng.normal(size=(40, 1, 32)).astype(np.float32))
    overrides = {} if recipe == "int8" else {compress_pass(recipe): {"min_weights": 1}}
    made = compress(model, recipe, Samples.open(tmp_path / "x.npz", model), overrides=overrides)
    run = tmp_path / "run"
    outcome = deployed(run, made.history)
    (part,) = parts(outcome, run)
    assert len(part.layers) == 3
    assert not any(one.others for one in part.layers)
    assert all(one.state in {"int8", "float"} and one.op == "MatMul" and one.weight_db for one in part.layers)
    assert words.advice(part, outcome)
    sound(render(outcome, run))
    if recipe == "int8":
        assert {"input range", "clipped", "rounding, dB", "activations, dB"} <= {c.title for c in columns(part)}


def compress_pass(recipe: str) -> str:
    return Recipe.named(recipe).steps[-1].name


def test_weights_alone(tmp_path: Path) -> None:
    told = {
        "weights": [
            {"name": "stem.weight", "operator": "Conv", "bits": 4, "sqnr_db": 24.0},
            {"name": "head.weight", "operator": "Gemm", "bits": 4, "sqnr_db": 21.0},
        ],
        "bytes": {"before": 4_154_752, "after": 1_078_832},
        "float": {"fewer than 1024 weights": {"count": 13, "nodes": [f"w{i}" for i in range(8)]}},
        "format": "this is why",
        "agreement": 1.0,
        "select_samples": 12,
    }
    part = only(tmp_path, told, name="quantize_weights", config={})
    assert words.headline(part) == "2 layers in int4"
    assert words.summary(part) == [
        "Format: this is why.",
        "Weights take 1.08 MB instead of 4.15 MB.",
        "In float: `w0`, `w1`, `w2`, `w3`, `w4`, `w5` and 7 more (fewer than 1024 weights).",
        "On 12 select samples the answers agree with the original's: 100 %.",
    ]
    assert words.cause(part.worst[0]) == "rounded weights 21.0 dB"
    assert "SQNR of the layer's weights, dB" in str(chart(part))


def test_reasons_by_name(tmp_path: Path) -> None:
    told = stats(layer("a"), float={"/lstm": "no int8 form", "/gru": "no int8 form"})
    assert "In float: `/lstm`, `/gru` (no int8 form)." in words.summary(only(tmp_path, told))


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.00003, "<0.01 %"),
        (0.0031, "0.31 %"),
        (0.0312, "3.1 %"),
        (0.9999, ">99.9 %"),
        (None, "–"),
    ],
)
def test_shares_have_the_digits_they_need(share: float | None, text: str) -> None:
    assert words.part_of(share) == text
