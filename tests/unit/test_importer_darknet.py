"""The Darknet importer: what a cfg and its weights mean to it, what it says, and what it refuses."""

from __future__ import annotations

import struct
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.darknet_nets import Net
from tests.onnx_files import benchmark, refused

import edgewright as ew
from edgewright.cli.short_options import expand
from edgewright.importers.darknet import Options, _cfg, _known
from edgewright.importers.darknet._network import BUILDERS
from edgewright.spec import ImageInput, TensorInput

fuzzing = benchmark("fuzz_darknet")

HEAD = "[net]\nwidth=12\nheight=9\nchannels=3\n"
CONV = "[convolutional]\nfilters=8\nsize=3\npad=1\nactivation=linear\n"
YOLO = (
    "[convolutional]\nfilters=16\nsize=1\nactivation=linear\n"
    "[yolo]\nmask=1,0\nanchors= 10,11, 20,21\nclasses=3\nnum=2\nnms_kind=diounms\nbeta_nms=0.5\njitter=.3\n"
)
NET = f"{HEAD}{CONV}{YOLO}"
Tolerance = dict[str, dict[str, float]]


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """A cfg with seeded weights that fit it."""

    def make(text: str, **fields: Any) -> Path:
        wanted = Net(text, **fields)
        c, h, w = (int(wanted.sections[0][1][key]) for key in ("channels", "height", "width"))
        wanted.step(np.zeros((c, h, w)))
        return wanted.write(tmp_path, text)

    return make


def bare(folder: Path, text: str, payload: bytes = b"") -> Path:
    """A cfg with a header and `payload` for weights."""
    (folder / "net.cfg").write_text(text, encoding="latin-1")
    (folder / "net.weights").write_bytes(struct.pack("<3iQ", 0, 2, 5, 0) + payload)
    return folder / "net.cfg"


# --- what it says -------------------------------------------------------------------------------------------------------


def test_spec_of_a_detector(made: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "three.names").write_text("cat\ndog\n bird \n\n")
    model = ew.load(made(NET), labels=tmp_path / "three.names")
    assert model.spec.task == "detect"
    head = {
        "kind": "yolo", "output": "layer_002", "classes": 3, "anchors": [[20, 21], [10, 11]], "scale_x_y": 1.0,
        "new_coords": False,
    }  # fmt: skip
    assert dict(model.spec.options) == {
        "labels": ["cat", "dog", "bird"], "threshold": 0.25, "nms": "diou", "nms_threshold": 0.45, "beta": 0.5,
        "heads": [head],
    }  # fmt: skip
    assert ew.Spec.from_json(model.spec.to_json()).to_json() == model.spec.to_json()
    assert [str(info) for info in model.inputs] == ["image float32[N, 3, 9, 12]"]
    assert [str(info) for info in model.outputs] == ["layer_002 float32[N, 16, 9, 12]"]
    (step,) = model.history
    assert (step.kind, step.name, step.lossy) == ("import", "darknet", False)
    assert step.stats["version"] == "0.2.5"
    assert step.stats["images_seen"] == 12345
    assert step.stats["parameters"] == 8 * 27 + 8 + 16 * 8 + 16
    assert "warnings" not in step.stats


@pytest.mark.parametrize(("where", "resize"), [("net", "letterbox"), ("yolo", "letterbox"), ("", "stretch")])
def test_letterbox(made: Callable[..., Path], where: str, resize: str) -> None:
    text = NET.replace("channels=3", "channels=3\nletter_box=1") if where == "net" else NET
    image = ew.load(made(text + ("letter_box=1" if where == "yolo" else ""))).spec.inputs["image"]
    assert isinstance(image, ImageInput)
    assert (image.resize, image.size, image.antialias, image.colour) == (resize, (9, 12), False, "rgb")


@pytest.mark.parametrize(
    ("body", "task", "outputs"),
    [
        (f"{CONV}[avgpool]\n[softmax]\n[cost]", "classify", ["layer_002"]),
        (f"{CONV}[connected]\noutput=5\nactivation=linear", "classify", ["layer_001"]),
        (f"{CONV}[maxpool]\nstride=2\nsize=2", "tensor", ["layer_001"]),
        (f"{YOLO}[route]\nlayers=0\n{YOLO}", "detect", ["layer_001", "layer_004"]),
        ("[connected]\noutput=33\n[detection]\nside=1\nnum=2\ncoords=4\nclasses=23\nsqrt=1", "detect", ["layer_001"]),
    ],
)
def test_task_and_outputs(made: Callable[..., Path], body: str, task: str, outputs: list[str]) -> None:
    model = ew.load(made(HEAD + body))
    assert model.spec.task == task
    assert [info.name for info in model.outputs] == outputs


def test_heads_of_yolov1_and_yolov2(made: Callable[..., Path]) -> None:
    one = "[connected]\noutput=33\n[detection]\nside=1\nnum=2\ncoords=4\nclasses=23\nsqrt=1"
    assert ew.load(made(HEAD + one)).spec.options["heads"] == [
        {"kind": "detection", "output": "layer_001", "classes": 23, "anchors": [], "scale_x_y": 1.0, "new_coords": False,
         "side": 1, "boxes": 2, "sqrt": True}
    ]  # fmt: skip
    two = "[convolutional]\nfilters=16\n[region]\nnum=2\nclasses=3\nanchors=1.5,2,3,4\nsoftmax=1\nbias_match=1"
    options = ew.load(made(HEAD + two)).spec.options
    assert options["heads"][0]["anchors"] == [[1.5, 2.0], [3.0, 4.0]]
    assert options["nms"] == "default"


@pytest.mark.parametrize(
    ("section", "kind", "nms"),
    [
        ("yolo", "", "default"), ("yolo", "nms_kind=greedynms", "greedy"), ("yolo", "nms_kind=cornersnms", None),
        ("yolo", "nms_kind=odd", None), ("Gaussian_yolo", "nms_kind=cornersnms", "corners"),
    ],
)  # fmt: skip
def test_the_last_head_chooses_the_suppression(
    made: Callable[..., Path], section: str, kind: str, nms: str | None
) -> None:
    channels = 24 if section == "Gaussian_yolo" else 16
    path = made(
        f"{HEAD}{YOLO}[convolutional]\nfilters={channels}\n[{section}]\nnum=2\nclasses=3\nanchors=1,2,3,4\n{kind}"
    )
    if nms is None:  # as Darknet: what [yolo] does not know is the default
        with pytest.warns(ew.EdgewrightWarning, match="nms_kind `.*` is not known here"):
            assert ew.load(path).spec.options["nms"] == "default"
    else:
        assert ew.load(path).spec.options["nms"] == nms


def test_grey_and_many_channels(made: Callable[..., Path]) -> None:
    grey = ew.load(made(NET.replace("channels=3", "channels=1"))).spec.inputs["image"]
    assert isinstance(grey, ImageInput)
    assert grey.colour == "gray"
    assert ew.load(made(NET.replace("channels=3", "channels=4"))).spec.inputs["image"] == TensorInput()


def test_batch_and_time_steps(made: Callable[..., Path]) -> None:
    path = made(HEAD.replace("width", "time_steps=4\nwidth") + "[gru]\noutput=3")
    assert [info.shape for info in ew.load(path, time_steps=4).inputs] == [(4, 3, 9, 12), (1, 3)]
    assert [info.shape for info in ew.load(path).inputs] == [("N", 3, 9, 12), ("N", 3)]  # as Darknet at inference
    assert [info.shape for info in ew.load(path, batch=2).inputs] == [(2, 3, 9, 12), (2, 3)]
    with refused("E103", "darknet.batch", "4 steps"):
        ew.load(path, batch=2, time_steps=4)
    path = made(HEAD.replace("width", "time_steps=4\nwidth") + CONV)
    assert ew.load(path, time_steps=4).inputs[0].shape[0] == "N"  # without a memory, steps are images
    for options, name in (({"batch": 0}, "batch"), ({"time_steps": 0}, "time_steps")):
        with refused("E103", f"darknet.{name}"):
            ew.load(path, **options)


# --- the cfg ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("=", " \t= ").replace("[", "  [ ").replace("]", " ]  ").encode(),
        lambda text: ("# größe\n; x=1\n\n" + text.replace("\n", "  # rest\n")).encode("latin-1"),
        lambda text: text.replace("[net]", "[network]").replace("size=3", "size=3.0").encode(),
        lambda text: text.rstrip("\n").encode(),
    ],
    ids=["crlf", "cr", "bom", "blanks", "comments in latin-1", "synonym and 3.0", "no last newline"],
)
def test_ways_of_writing(made: Callable[..., Path], change: Callable[[str], bytes]) -> None:
    path = made(NET)
    plain = ew.load(path)
    path.write_bytes(change(NET))
    assert ew.load(path).hash == plain.hash


def test_unknown_options_warn_with_their_line(made: Callable[..., Path]) -> None:
    path = made(NET.replace("[yolo]", "[yolo]\nfoo=1").replace("width", "bar=2\nwidth"))
    with pytest.warns(ew.EdgewrightWarning) as caught:
        model = ew.load(path)
    texts = [str(warning.message) for warning in caught]
    assert texts == [
        "`net.cfg` line 2: [net]: option `bar` is not known and has no effect",
        "`net.cfg` line 16: layer 2 [yolo]: option `foo` is not known and has no effect",
    ]
    assert model.history[0].stats["warnings"] == texts


def test_an_option_twice_and_an_unknown_activation_warn(made: Callable[..., Path]) -> None:
    path = made(NET.replace("filters=8", "filters=8\nfilters=9"))
    with pytest.warns(ew.EdgewrightWarning, match=r"line 7: layer 0 .*`filters` is there twice; line 6 counts"):
        ew.load(path)
    path = made(NET)
    path.write_text(NET.replace("activation=linear", "activation=lineal", 1))
    with pytest.warns(ew.EdgewrightWarning, match="`lineal` is not known; Darknet takes relu"):
        assert "Relu" in {node.op_type for node in ew.load(path).ir.graph}


def test_training_options_do_not_warn(data: Path) -> None:
    for name in ("cifar", "yolov3-tiny"):  # without weights: both are read as far as the weights
        sections, warnings = _cfg.read(data / "darknet" / f"{name}.cfg")
        assert warnings == []
        assert all(section.entries.keys() <= _known.ignored("net") | {"width", "height"} for section in sections[:1])


def test_an_option_of_several_plugins_belongs_to_the_one_that_loads_the_network() -> None:
    assert expand(["net.cfg", "--weights", "w"], set()) == ["net.cfg", "--set", "darknet.weights=w"]
    assert expand(["--weights=w", "zoo:resemblyzer"], set()) == ["--set", "resemblyzer.weights=w", "zoo:resemblyzer"]
    with refused("E103", "`--weights` could belong to: darknet, ncnn, efficientnet_lite, resemblyzer"):
        expand(["net.onnx", "--weights", "w"], set())


# --- the weights --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "header"), [((0, 1, 0), 16), ((0, 2, 5), 20), ((1, 0, 0), 20), ((0, 0, 9), 16)])
def test_headers(made: Callable[..., Path], version: tuple[int, int, int], header: int) -> None:
    path = made(NET, version=version)
    assert path.with_suffix(".weights").stat().st_size == header + 4 * (8 * 27 + 8 + 16 * 8 + 16)
    stats = ew.load(path).history[0].stats
    assert (stats["version"], stats["images_seen"]) == (".".join(str(number) for number in version), 12345)


def test_weights_by_option_and_beside(made: Callable[..., Path], tmp_path: Path) -> None:
    path = made(NET)
    plain = ew.load(path)
    other = tmp_path / "other.bin"
    path.with_suffix(".weights").rename(other)
    assert ew.load(path, weights=other).hash == plain.hash
    with refused("E104", "net.weights", "darknet.weights=FILE"):
        ew.load(path)
    with refused("E104", "nowhere.weights"):
        ew.load(path, weights=tmp_path / "nowhere.weights")
    with refused("E104"):
        ew.load(path, weights=tmp_path)


def test_dontload_skips_a_layer(made: Callable[..., Path]) -> None:
    path = made(f"{HEAD}{CONV}{CONV}")
    plain = ew.load(path)
    path.write_text(f"{HEAD}{CONV}dontload=1\n{CONV}")
    weights = path.with_suffix(".weights").read_bytes()
    path.with_suffix(".weights").write_bytes(weights[:20] + weights[20 + 4 * (8 * 27 + 8) :])
    with pytest.warns(ew.EdgewrightWarning, match="line 10: layer 0 .*dontload=1"):
        model = ew.load(path)
    for part in ("weight", "bias"):
        values = [m.ir.graph.initializers[f"layer_001.{part}"].const_value.numpy() for m in (plain, model)]
        np.testing.assert_array_equal(*values)
    assert not model.ir.graph.initializers["layer_000.weight"].const_value.numpy().any()


def test_every_cut_of_the_weights_is_refused(made: Callable[..., Path]) -> None:
    path = made(NET)
    weights = path.with_suffix(".weights")
    data = weights.read_bytes()
    cuts = {
        *range(21),
        *range(len(data) - 9, len(data)),
        500,
        20 + 32,
        20 + 4 * (8 + 8 * 27),
        20 + 4 * (8 + 8 * 27) + 1,
    }
    for cut in sorted(cuts):
        weights.write_bytes(data[:cut])
        with refused("E201" if cut < 20 else "E202", "net.weights"):
            ew.load(path)


def test_messages_name_layer_and_bytes(made: Callable[..., Path]) -> None:
    path = made(NET)
    weights = path.with_suffix(".weights")
    data = weights.read_bytes()
    weights.write_bytes(data[:-8])
    with refused("E202", "layer 1 [convolutional] needs 576 bytes, 568 left; classes= or filters= probably changed"):
        ew.load(path)
    weights.write_bytes(data + bytes(12))
    with refused("E202", "12 bytes are left"):
        ew.load(path)
    weights.write_bytes(b"PK\x03\x04" + data)
    with refused("E201", "no Darknet weights"):
        ew.load(path)
    weights.write_bytes(data)
    path.write_text(NET.replace("filters=16", "filters=24").replace("classes=3", "classes=7"))
    with refused("E202", "layer 1 [convolutional]", "classes="):
        ew.load(path)


# --- what cannot be -----------------------------------------------------------------------------------------------------

BAD = [
    ("", "E201", "no section"),
    ("\0\0\1binary", "E201", "not text"),
    ("hello world", "E201", "before the first section"),
    ("[convolutional]\nfilters=1", "E201", "[net]"),
    ("[net]\nwidth=12\nheight=9\nchannels=3", "E201", "no layer"),
    ("[net]\nwidth=12\n[avgpool]", "E214", "`height` is missing"),
    ("[net]\nwidth=12\nheight=9\n[avgpool]", "E214", "`channels` is missing"),
    ("[net]\nwidth=0\nheight=9\nchannels=3\n[avgpool]", "E214", "`width` is 0"),
    ("[net]\nwidth=-5\nheight=9\nchannels=3\n[avgpool]", "E214", "line 2"),
    ("[net]\nwidth=99999\nheight=9\nchannels=3\n[avgpool]", "E214", "16384"),
    ("[net]\nwidth=12\nheight=9\nchannels=3\ninputs=7\n[avgpool]", "E214", "324 values"),
    (f"{HEAD}filters\n[avgpool]", "E214", "line 5: `filters` is neither"),
    (f"{HEAD}[avgpool\n", "E214", "line 5: `[avgpool` is no section"),
    (f"{HEAD}[]\n", "E214", "no section"),
    (f"{HEAD}[transformer]\n", "E204", "line 5: layer 0 [transformer]"),
    (f"{HEAD}[gaussian_yolo]\n", "E204", "no section [gaussian_yolo]"),
    (f"{HEAD}[iseg]\n", "E204", "segmentation"),
    (f"{HEAD}[convolutional]\nfilters=abc", "E214", "line 6: layer 0 [convolutional]: option `filters` is `abc`"),
    (f"{HEAD}[convolutional]\nfilters=", "E214", "`filters` is ``"),
    (f"{HEAD}[convolutional]\nfilters=-4", "E214", "`filters` is -4"),
    (f"{HEAD}[convolutional]\nfilters=99999999999999999999", "E214", "beyond"),
    (f"{HEAD}[convolutional]\nfilters={'9' * 5000}", "E214", "whole number"),
    (
        f"{HEAD}[convolutional]\nfilters=1000000000\nsize=3",
        "E202",
        "layer 0 [convolutional] needs 112000000000 bytes, 0 left",
    ),
    (f"{HEAD}[convolutional]\nactivation=", "E214", "`activation` has no value"),
    (f"{HEAD}[convolutional]\nsize=13\nfilters=1", "E202", "needs 2032 bytes"),
    (f"{HEAD}[convolutional]\nstride=0", "E214", "`stride` is 0"),
    (f"{HEAD}[convolutional]\ngroups=2\nfilters=4", "E214", "`groups` is 2"),
    (f"{HEAD}[convolutional]\nshare_index=0", "E203", "layer 0"),
    (f"{HEAD}[maxpool]\n[convolutional]\nshare_index=0", "E214", "share_index"),
    (f"{HEAD}[maxpool]\nsize=20\npadding=0", "E214", "too small"),
    (f"{HEAD}[maxpool]\npadding=2000000000\nstride=2", "E214", "more than"),
    (f"{HEAD}[maxpool]\nmaxpool_depth=1\nout_channels=7", "E214", "`out_channels` is 7"),
    (f"{HEAD}[local_avgpool]\nsize=2\npadding=9", "E214", "outside"),
    (f"{HEAD}[upsample]\nstride=1000000", "E214", "more than"),
    (f"{HEAD}[upsample]\nstride=0", "E214", "`stride` is 0"),
    (f"{HEAD}[upsample]\nstride=-2", "E214", "does not divide"),
    (f"{HEAD}[upsample]\nscale=nan", "E214", "`scale` is `nan`"),
    (f"{HEAD}[route]\nlayers=0", "E203", "line 6: layer 0 [route]: option `layers` is 0"),
    (f"{HEAD}[avgpool]\n[route]\nlayers=5", "E203", "layer 5"),
    (f"{HEAD}[avgpool]\n[route]\nlayers=-2", "E203", "layer -1"),
    (f"{HEAD}[avgpool]\n[route]", "E214", "`layers` must name"),
    (f"{HEAD}[dropout]\n[avgpool]\n[route]\nlayers=0,1", "E214", "joins"),
    (f"{HEAD}[dropout]\n[route]\nlayers=0\ngroups=2", "E214", "3 channels"),
    (f"{HEAD}[dropout]\n[route]\nlayers=0\ngroups=3\ngroup_id=3", "E214", "`group_id` is 3"),
    (f"{HEAD}[dropout]\n[avgpool]\n[shortcut]\nfrom=-2", "E214", "cannot be added"),
    (f"{HEAD}[dropout]\n[shortcut]\nfrom=-1\nweights_type=odd", "E214", "`weights_type` is `odd`"),
    (f"{HEAD}[dropout]\n[shortcut]\nfrom=-1\nweights_normalization=odd", "E214", "`weights_normalization` is `odd`"),
    (f"{HEAD}[dropout]\n[dropout]\n[scale_channels]\nfrom=-2", "E214", "needs 3 x 1 x 1"),
    (f"{HEAD}[dropout]\n[avgpool]\n[sam]\nfrom=-2", "E214", "layer_000"),
    (f"{HEAD}[dropout]\n[dropout]\n[sam]\nfrom=-2,-1", "E214", "names 2 layers"),
    (f"{HEAD}[reorg]\nstride=2", "E214", "multiple of 4"),
    (f"{HEAD}[reorg3d]\nstride=2", "E214", "does not divide"),
    (f"{HEAD}[reorg3d]\nstride=2\nreverse=1", "E214", "multiple of 16"),
    (f"{HEAD}[crop]\ncrop_height=10\ncrop_width=3", "E214", "`crop_height` is 10"),
    (f"{HEAD}[connected]\noutput=1000000000", "E202", "layer 0 [connected]"),
    (f"{HEAD}[local]\nfilters=1000000\nsize=3", "E202", "layer 0 [local]"),
    (f"{HEAD}[local]\nsize=13", "E214", "too small"),
    (f"{HEAD}[softmax]\ngroups=5", "E214", "does not divide"),
    (f"{HEAD}[softmax]\ntemperature=0", "E214", "`temperature` is 0"),
    (f"{HEAD}[softmax]\ntree=../../etc/passwd", "E104", "darknet.tree=FILE"),
    (f"{HEAD}[lrn]\nsize=1000000000", "E214", "`size` is 1000000000"),
    (f"{HEAD}[implicit]\nfilters=1000000000", "E202", "layer 0 [implicit]"),
    (f"{HEAD}[implicit]\nfilters=1000000000\ndontload=1", "E202", "at most"),
    (f"{HEAD}[yolo]\nclasses=3\nnum=2", "E214", "3 channels, but 2 anchors of 8 entries make 16"),
    (f"{HEAD}[yolo]\nmask=2\nnum=2", "E214", "`mask` names anchor 2"),
    (f"{HEAD}[yolo]\nnum=1000000000", "E214", "`num` is 1000000000"),
    (f"{HEAD}[Gaussian_yolo]\nnum=1\nyolo_point=left_top", "E204", "`yolo_point`"),
    (f"{HEAD}[region]\nnum=2\nclasses=3", "E214", "make 16"),
    (f"{HEAD}[region]\nnum=2\nclasses=3\ncoords=3", "E214", "`coords` is 3"),
    (f"{HEAD}[detection]\nside=3", "E214", "324 values"),
    (f"{HEAD}[crnn]\nhidden=2\noutput=2", "E214", "must keep the size"),
    (f"{HEAD}[conv_lstm]\npad=1\noutput=8\nbottleneck=1", "E214", "`bottleneck`"),
    (f"{HEAD}[conv_lstm]\npad=1\noutput=3\nbottleneck=1\nshortcut=1", "E204", "`shortcut` with `bottleneck`"),
    (f"{HEAD}[lstm]\noutput=1000000000", "E202", "layer 0 [lstm]"),
    (f"{HEAD}[gru]\noutput=100000000", "E202", "layer 0 [gru]"),
    (f"{HEAD}[history]\nhistory_size=1000000000", "E214", "more than"),
    (f"{HEAD}[cost]", "E214", "computes anything"),
]


@pytest.mark.filterwarnings("ignore::edgewright.errors.EdgewrightWarning")
@pytest.mark.parametrize(("text", "code", "part"), BAD, ids=[f"{code} {part}"[:60] for _, code, part in BAD])
def test_refused(text: str, code: str, part: str, tmp_path: Path) -> None:
    path = bare(tmp_path, text)
    tracemalloc.start()
    try:
        with refused(code, part, *(["line"] if code in ("E203", "E204", "E214") else [])):
            ew.load(path)
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()


def test_a_cfg_cut_anywhere_is_loaded_or_refused(made: Callable[..., Path]) -> None:
    path = made(NET)
    for cut in range(len(NET)):
        path.write_text(NET[:cut])
        try:
            with warnings.catch_warnings(action="ignore", category=ew.EdgewrightWarning):
                ew.load(path)
        except ew.EdgewrightError as problem:
            assert problem.code in {"E201", "E202", "E203", "E204", "E214"}, NET[:cut]


def test_labels_must_be_as_many_as_the_classes(made: Callable[..., Path], tmp_path: Path) -> None:
    path, names = made(NET), tmp_path / "x.names"
    names.write_text("cat\ndog\n")
    with refused("E303", "2 names", "3 classes"):
        ew.load(path, labels=names)
    names.write_bytes(b"\xff\xfe")
    with refused("E303", "UTF-8"):
        ew.load(path, labels=names)
    names.write_bytes(b"")
    with refused("E303", "empty"):
        ew.load(path, labels=names)
    with refused("E104", "nothing.names"):
        ew.load(path, labels=tmp_path / "nothing.names")


def test_files_that_are_none(tmp_path: Path) -> None:
    with refused("E104"):
        ew.load(tmp_path / "absent.cfg")
    (tmp_path / "folder.cfg").mkdir()
    with refused("E104", "folder"):
        ew.load(tmp_path / "folder.cfg")
    tree = bare(tmp_path, f"{HEAD}[avgpool]\n[softmax]\ntree=t")
    for text, part in (("a -1\n", "1 classes"), ("a\n", "line 1"), ("a x\nb 1\n", "line 1"), ("a -1\nb 1\n", "line 2")):
        (tmp_path / "t").write_text(text)
        with refused("E214", "tree `t`", part):
            ew.load(tree)


def test_every_section_has_a_builder_that_says_what_it_does() -> None:
    assert all(builder.__doc__ for builder in BUILDERS.values())
    assert Options().weights is None


# --- fuzzing ------------------------------------------------------------------------------------------------------------


def test_mutated_files_are_loaded_or_refused(tmp_path: Path) -> None:
    outcome = fuzzing.fuzz(fuzzing.SMALL, tmp_path, count=80, seed=3)
    assert outcome.results["loaded"] > 5
    assert outcome.results["E214"] > 5
    assert outcome.most_bytes < 64e6


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="[]=#;,-.0123456789 \r\n\tnetwidhco\ufeff", max_size=120), tail=st.binary(max_size=40))
@pytest.mark.filterwarnings("ignore::edgewright.errors.EdgewrightWarning")
def test_any_text_is_loaded_or_refused(tmp_path: Path, text: str, tail: bytes) -> None:
    path = tmp_path / "any.cfg"
    path.write_text(text, encoding="utf-8", newline="")
    (tmp_path / "any.weights").write_bytes(tail)
    with pytest.raises(ew.EdgewrightError):
        ew.load(path)
