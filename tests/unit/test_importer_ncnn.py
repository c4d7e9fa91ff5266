"""The ncnn importer: names, constants, int8, what it says, and what it refuses."""

from __future__ import annotations

import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from tests.ncnn_nets import HALF, INT8, drawn, inputs, ncnn_runs, our_runs, plain, tagged, tensors, text, write
from tests.onnx_files import benchmark, refused

import edgewright as ew
from edgewright.cli.short_options import expand

fuzzing = benchmark("fuzz_ncnn")

MAP = "Input data 0 1 in 0=7 1=6 2=4"
CONV = "Convolution conv 1 1 in out 0=5 1=3 4=1 5=1 6=180"
Tolerance = dict[str, dict[str, float]]


def loaded(folder: Path, lines: str, weights: bytes = b"", **options: object) -> ew.Model:
    return ew.load(write(folder, lines, weights), **options)


# --- what it says -------------------------------------------------------------------------------------------------------


def test_history_tells_where_the_weights_came_from(tmp_path: Path, rng: np.random.Generator) -> None:
    model = loaded(tmp_path, f"{MAP}\n{CONV}", tagged(rng.normal(size=180)) + plain(rng.normal(size=5)))
    (step,) = model.history
    assert (step.kind, step.name, step.lossy, step.stats["weights"]) == ("import", "ncnn", False, "net.bin")
    assert step.stats["parameters"] == 185
    assert len(step.stats["weights_sha256"]) == 64
    assert model.name == "net"
    assert [(info.name, info.shape) for info in model.inputs] == [("in", ("N", 4, 6, 7))]


def test_the_input_s_shape_may_be_given(tmp_path: Path) -> None:
    for shape, expected in (((0, 3, 8, 9), ("N", 3, 8, 9)), ((2, 3, 8, 9), (2, 3, 8, 9)), ((1, 5), (1, 5))):
        for line in ("Input data 0 1 in", MAP):
            model = loaded(tmp_path, f"{line}\nReLU r 1 1 in out", input_shape=shape)
            assert model.inputs[0].shape == model.outputs[0].shape == expected


def test_split_and_what_does_nothing_keep_the_first_name(tmp_path: Path) -> None:
    lines = "ReLU a 1 1 in x\nSplit s 1 2 x x0 x1\nDropout d 1 1 x0 y\nSigmoid b 1 1 y left\nNoop n 1 1 x1 z\nTanH c 1 1 z right"
    model = loaded(tmp_path, f"{MAP}\n{lines}")
    assert tensors(model) == ["x", "left", "right"]


def test_blobs_that_nothing_reads_are_outputs_under_their_own_names(tmp_path: Path) -> None:
    model = loaded(tmp_path, f"{MAP}\nReLU a 1 1 in x\nSplit s 1 3 x x0 x1 x2\nTanH b 1 1 x1 y")
    assert [info.name for info in model.outputs] == ["x0", "x2", "y"]
    feeds = {"in": np.full((1, 4, 6, 7), -1, np.float32)}
    assert not our_runs(model, feeds, ["x2"])["x2"].any()


def test_names_of_blobs_win_over_names_that_are_made_up(tmp_path: Path, rng: np.random.Generator) -> None:
    lines = "\n".join(["Convolution c 1 1 in x 0=2 1=1 6=8 9=1", "ReLU a 1 1 x x.conv", "ReLU b 1 1 x.conv x.weight"])
    model = loaded(tmp_path, f"{MAP}\n{lines}", tagged(rng.normal(size=8)))
    assert len(set(tensors(model))) == 4
    assert {"x", "x.conv", "x.weight"} < set(tensors(model))
    ew.load(model.save(tmp_path / "out.onnx"))


def test_constants_are_repeated_for_each_sample(tmp_path: Path, rng: np.random.Generator, tolerance: Tolerance) -> None:
    lines = "MemoryData m 0 1 m 0=7 1=6 2=2\nMemoryData n 0 1 n 0=7 21=0\nConcat c 2 1 in m x\nBinaryOp b 2 1 x n y 0=2"
    path = write(tmp_path, f"{MAP}\n{lines}", plain(rng.normal(size=84)) + tagged(rng.normal(size=7), HALF))
    model = ew.load(path)
    feeds = drawn(model, rng)
    limits = tolerance["float32"]
    np.testing.assert_allclose(
        our_runs(model, feeds, ["y"])["y"], ncnn_runs(path, feeds, ["y"])["y"], rtol=limits["rtol"], atol=limits["atol"]
    )
    assert our_runs(model, {"in": np.repeat(feeds["in"], 3, 0)}, ["y"])["y"].shape == (3, 6, 6, 7)


def test_detection_output_is_left_out_with_a_warning(tmp_path: Path) -> None:
    prior = "PriorBox p 2 1 a in boxes -23300=1,4.0 -23302=1,2.0 9=-233 10=-233"
    with pytest.warns(ew.EdgewrightWarning, match="line 6: DetectionOutput `d`: boxes are not decoded") as caught:
        model = loaded(tmp_path, f"{MAP}\nReLU r 1 1 in a\n{prior}\nDetectionOutput d 2 1 a boxes det 0=2 1=0.45")
    assert "`a`, `boxes`" in str(caught[0].message)
    assert [info.name for info in model.outputs] == ["a", "boxes"]
    assert model.outputs[1].shape == (1, 2, 4 * 3 * 42)
    with pytest.warns(ew.EdgewrightWarning), refused("E204", "reads blob `det` of DetectionOutput `d`"):
        loaded(tmp_path, f"{MAP}\nDetectionOutput d 1 1 in det\nReLU r 1 1 det y")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("ReLU r 1 1 in out 0=0.1 7=3", "line 4: ReLU `r`: parameter 7 is not known and has no effect"),
        ("Clip c 1 1 in out 0=0.0 1=6", "line 4: Clip `c`: parameter 1 is the whole number 6"),
        ("Softmax s 1 1 in out 0=1", "its axis is of a file from before 2019"),
    ],
)
def test_what_is_doubtful_is_said_with_its_line(lines: str, said: str, tmp_path: Path) -> None:
    with pytest.warns(ew.EdgewrightWarning, match=said.replace("`", ".")):
        model = loaded(tmp_path, f"{MAP}\n{lines}")
    assert any(said in warning for warning in model.history[0].stats["warnings"])


def test_hints_for_devices_pass_without_a_word(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded(tmp_path, f"{MAP}\nReLU r 1 1 in out 31=3")


def test_the_weights_option_has_a_short_name(tmp_path: Path) -> None:
    path = write(tmp_path, f"{MAP}\nReLU r 1 1 in out")
    other = path.with_suffix(".bin").rename(tmp_path / "elsewhere.bin")
    with refused("E104", "net.bin` is not there"):
        ew.load(path)
    assert ew.load(path, weights=other).history[0].stats["weights"] == "elsewhere.bin"
    assert expand(["net.param", "--weights", "w"], set()) == ["net.param", "--set", "ncnn.weights=w"]


# --- int8 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("term", [1, 2, 101, 102])
@pytest.mark.parametrize("stored", ["int8", "float"])
def test_int8_as_ncnn_computes_it(
    term: int, stored: str, tmp_path: Path, rng: np.random.Generator, tolerance: Tolerance
) -> None:
    conv = f"Convolution a 1 1 in x 0=8 1=3 4=1 5=1 6=288 8={term} 9=1"
    depthwise = "ConvolutionDepthWise b 1 1 x y 0=8 1=3 4=1 5=1 6=72 7=8 8=1"
    dense = "InnerProduct c 1 1 y out 0=3 1=1 2=1008 8=1"
    data = b""
    for count, outputs, scales, tops in ((288, 8, 8, term > 100), (72, 8, 8, False), (1008, 3, 3, False)):
        weights = rng.normal(0, 0.4, count).astype(np.float32)
        scale = np.full(scales, 80.0)
        integers = np.clip(np.rint(weights * 80), -127, 127)
        data += tagged(integers, INT8) if stored == "int8" else tagged(weights)
        data += plain(rng.normal(size=outputs)) + plain(scale) + plain([20.0]) + (plain([20.0]) if tops else b"")
    path = write(tmp_path, f"{MAP}\n{conv}\n{depthwise}\n{dense}", data)
    model = ew.load(path)
    assert model.precision == "int8"
    feeds = drawn(model, rng, 8.0)  # beyond what 127 steps of 1/20 reach: the lower limit counts
    theirs, ours = (
        run(feeds) for run in (lambda x: ncnn_runs(path, x, ["y", "out"]), lambda x: our_runs(model, x, ["y", "out"]))
    )
    for name in ("y", "out"):
        step = np.abs(theirs[name]).max() / 127
        assert np.abs(ours[name] - theirs[name]).mean() / step <= tolerance["int8"]["steps"]


def test_a_channel_without_scale_has_no_weights(tmp_path: Path) -> None:
    data = tagged([5, -7], INT8) + plain([0.0, 10.0]) + plain([10.0])
    model = loaded(tmp_path, "Input i 0 1 in 0=1\nInnerProduct c 1 1 in out 0=2 2=2 8=1", data)
    out = our_runs(model, {"in": np.ones((1, 1), np.float32)}, ["out"])["out"]
    np.testing.assert_allclose(out, [[0.0, -0.7]])


# --- what it refuses ----------------------------------------------------------------------------------------------------

REFUSED = [
    ("E204", "DeformableConv2D d 1 1 in out", b"", "line 4: DeformableConv2D `d`: no layer of this type can be read"),
    ("E204", "nn.ReLU r 1 1 in out", b"", "no layer of this type"),
    ("E204", "BinaryOp b 1 1 in out 0=10 1=1", b"", "operation 10 is not supported"),
    ("E204", 'Reshape r 1 1 in out 6="0w,-1"', b"", "a parameter that is computed"),
    ("E204", "Convolution c 1 1 in out 0=5 1=3 6=180 19=1", b"", "a kernel that another layer computes"),
    ("E204", "Convolution1D c 1 1 in out 0=5 1=3 6=15 8=1", b"", "int8 is not supported"),
    ("E204", "Reshape r 1 1 in out 0=-1 12=0 13=0", b"", "a batch among its sizes"),
    ("E204", "Permute p 1 1 in x\nReduction r 1 1 x out 0=11", b"", "operation 11"),
    ("E215", "Input b 0 1 x 0=4\nEltwise e 2 1 in x out", b"", "differ in size"),
    ("E215", "Input b 0 1 x 0=4 1=3\nBinaryOp e 2 1 in x out", b"", "do not go together"),
    ("E215", "Concat c 1 1 in out 0=3", b"", "axis 3 of a blob with 3 sizes"),
    ("E215", "Slice s 1 2 in a b -23300=2,5,1", b"", "part 0 would be 0 to 5 of an axis of 4"),
    ("E215", "Slice s 1 3 in a b c -23300=2,1,1", b"", "cut for fewer"),
    ("E215", "Reshape r 1 1 in out 0=5 1=-1", b"", "4 x 6 x 7 cannot become"),
    ("E215", "Permute p 1 1 in out 0=6", b"", "order 6"),
    ("E215", "Pooling p 1 1 in out 1=9 5=1", b"", "does not fit it"),
    ("E215", "Pooling p 1 1 in out 1=2 2=0", b"", "parameter 2 is 0, but must be 1 to"),
    ("E215", "Convolution c 1 1 in out 1=3 6=180", b"", "parameter 0 is missing"),
    ("E215", "Convolution c 1 1 in out 0=5 1=3 6=181", b"", "181 weights are not those of 5 outputs"),
    ("E215", "Convolution c 1 1 in out 0=5 1=3 6=90", b"", "for 2 channels, its input has 4"),
    ("E215", "Convolution c 1 1 in out 0=5.0 1=3 6=180", b"", "parameter 0 is 5.0, but must be a whole number"),
    ("E215", "Clip c 1 1 in out 0=1.0,2.0", b"", "must be a number"),
    ("E215", "Convolution c 1 1 in out 0=1 1=1 6=4", tagged(np.ones(4), INT8), "it has no scales"),
    ("E215", "InnerProduct c 1 1 in out 0=1 2=168 8=1", tagged(np.ones(168), INT8) + plain([1, 0]), "scale 0.0"),
    ("E215", "InnerProduct c 1 1 in out 0=1 2=168 8=1", tagged(np.ones(168), INT8) + plain([-1, 1]), "no positive numbers"),
    ("E215", "ReLU r 1 2 in a b", b"", "makes 2 blobs, but can make 1"),
    ("E215", "ReLU r 0 1 out", b"", "reads 0 blobs"),
    ("E215", "LSTM l 1 1 in out 0=3 1=72", b"", "its input has 3 sizes, but needs rows"),
    ("E202", CONV, tagged(np.ones(180)) + plain(np.ones(4)), "Convolution `conv` (line 4) needs 20 bytes at byte 724, 16 left"),
    ("E202", CONV, tagged(np.ones(180)) + plain(np.ones(6)), "4 bytes are left after the last layer, of 748"),
    ("E202", "Convolution c 1 1 in out 0=1 1=1 6=2147483644", b"", "for 2147483644 channels"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "lines", "weights", "part"), REFUSED, ids=[case[3] for case in REFUSED])
def test_what_cannot_be_is_refused(code: str, lines: str, weights: bytes, part: str, tmp_path: Path) -> None:
    if "2147483644" in lines:
        code = "E215"
    with refused(code, part):
        loaded(tmp_path, f"{MAP}\n{lines}", weights)


def test_pnnx_s_own_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ew.EdgewrightError) as caught:
        loaded(tmp_path, f"{MAP}\nnn.Conv2d c 1 1 in out")
    assert "pnnx" in str(caught.value.hint)


def test_an_input_without_sizes_needs_the_option(tmp_path: Path) -> None:
    with pytest.raises(ew.EdgewrightError) as caught:
        loaded(tmp_path, "Input data 0 1 in\nReLU r 1 1 in out")
    assert caught.value.code == "E209"
    assert caught.value.hint == "--set ncnn.input_shape=1,3,224,224"
    for shape in ((3,), (-1, 3), (1, 0), (1, 2, 3, 4, 5, 6)):
        with refused("E103", "input_shape"):
            loaded(tmp_path, "Input data 0 1 in\nReLU r 1 1 in out", input_shape=shape)


def test_a_network_without_layers_or_outputs(tmp_path: Path) -> None:
    with refused("E201", "no layer"):
        loaded(tmp_path, "")
    with refused("E215", "makes an output"):
        loaded(tmp_path, MAP)


@pytest.mark.parametrize("sizes", ["-23300=1,-4.0 -23301=1,8.0", "-23300=1,4.0 -23301=1,0.0"])
def test_boxes_without_a_size_are_refused(sizes: str, tmp_path: Path) -> None:
    with refused("E215", "above 0"):
        loaded(tmp_path, f"{MAP}\nPriorBox p 1 1 in out {sizes} 9=32 10=32")


def test_memory_is_not_taken_on_the_word_of_a_number(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        for line in (
            "MemoryData m 0 1 out 0=32768 1=32768",
            "InnerProduct c 1 1 in out 0=12000000 2=2016000000",
            "Pooling p 1 1 in out 7=1 8=2147483647",
            "Input j 0 1 x 0=30000 1=30000 2=1\nPriorBox p 1 1 x out -23300=1,4.0 9=1 10=1",
            "Slice s 1 1 in out -23300=999999999,1",
            "Input j 0 1 x 0=1 1=1 2=2000000000\nInstanceNorm n 1 1 x out 0=2000000000 2=0",
            "Input j 0 1 x 0=1 1=1 2=2000000000\nGroupNorm n 1 1 x out 0=1000000000 1=2000000000 3=0",
            "Input j 0 1 x 0=2000000000\nLayerNorm n 1 1 x out 0=2000000000 2=0",
        ):
            with pytest.raises(ew.EdgewrightError):
                loaded(tmp_path, f"{MAP}\n{line}")
                raise AssertionError(line)
            assert tracemalloc.get_traced_memory()[1] < 64_000_000
    finally:
        tracemalloc.stop()


def test_every_end_of_the_small_network_is_refused(tmp_path: Path) -> None:
    """Cut short at any line, at any byte of a line, and at any word of the weights."""
    path = tmp_path / "net.param"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ew.EdgewrightWarning)
        path.write_text(fuzzing.SMALL)
        fuzzing.fit(path)
        whole = path.with_suffix(".bin").read_bytes()
        for size in range(0, fuzzing.SMALL.rindex("\n", 0, -1), 23):
            path.write_text(fuzzing.SMALL[:size])
            with pytest.raises(ew.EdgewrightError):
                ew.load(path)
        path.write_text(fuzzing.SMALL)
        for size in range(0, len(whole), 1204):
            path.with_suffix(".bin").write_bytes(whole[:size])
            with refused("E202", ""):
                ew.load(path)


@pytest.mark.parametrize("seed", range(2))
def test_mutations_load_or_are_refused(seed: int, tmp_path: Path) -> None:
    outcome = fuzzing.fuzz(fuzzing.SMALL, tmp_path, count=60, seed=seed)
    assert outcome.results["loaded"] > 0
    assert {"E201", "E202", "E203", "E215"} <= set(outcome.results)


def test_the_helper_writes_what_ncnn_reads(tmp_path: Path, rng: np.random.Generator) -> None:
    """The other meaning is really another: ncnn refuses what is broken and runs what is not."""
    path = write(tmp_path, f"{inputs([(2, 3)])}\nReLU r 1 1 in0 out")
    feeds = {"in0": rng.normal(size=(1, 2, 3)).astype(np.float32)}
    np.testing.assert_array_equal(ncnn_runs(path, feeds, ["out"])["out"], np.maximum(feeds["in0"], 0))
    path.write_text(text("Nonsense r 0 1 out"))
    with pytest.raises(AssertionError, match="refuses"):
        ncnn_runs(path, {}, ["out"])
