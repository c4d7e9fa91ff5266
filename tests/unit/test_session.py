"""Sessions: one way to run every runtime, with inputs checked and inner tensors shown."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgewright import registry, session
from edgewright.bundle import Bundle
from edgewright.contracts import Cut
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.model import Model

TEXT = """<ir_version: 10, opset_import: ["" : 21]>
net (float[N,3] image, int64[N] shift) => (float[N,3] scores, float[N,3] twice) {
  moved = Relu(image)
  as_float = CastLike(shift, image)
  axes = Constant<value_ints = [1]>()
  column = Unsqueeze(as_float, axes)
  scores = Add(moved, column)
  twice = Add(scores, scores)
}"""
RUNTIMES = registry.installed("runtimes")
#: These take no integers: `shift` is a float there, and everything else the same.
FLOATS_ALONE = {"native", "ncnn"}


def net_for(runtime: str, model_from_text: Callable[..., Model]) -> Model:
    text = TEXT.replace("int64[N] shift", "float[N] shift") if runtime in FLOATS_ALONE else TEXT
    return model_from_text(text, name="net")


def shifts(bundle: Bundle, values: object) -> np.ndarray:
    """Values for the input `shift`, in its type."""
    return np.asarray(values, next(info.dtype for info in bundle.inputs if info.name == "shift"))


@pytest.fixture
def model(model_from_text: Callable[..., Model]) -> Model:
    return model_from_text(TEXT, name="net")


@pytest.fixture(params=RUNTIMES)
def bundle(request: pytest.FixtureRequest, model_from_text: Callable[..., Model], tmp_path: Path) -> Bundle:
    return convert(net_for(request.param, model_from_text), request.param, tmp_path / "net")


@pytest.fixture
def feeds(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    image = np.array([[-1.0, 0.5, 2.0]], np.float32)
    whole = np.array([1])
    if "bundle" not in request.fixturenames:
        return {"image": image, "shift": whole}
    return {"image": image, "shift": shifts(request.getfixturevalue("bundle"), whole)}


def refused(run: Callable[[], object]) -> EdgewrightError:
    with pytest.raises(EdgewrightError) as caught:
        run()
    return caught.value


SCORES = np.array([[1.0, 1.5, 3.0]], np.float32)


class TestRun:
    def test_outputs(self, bundle: Bundle, feeds: dict[str, np.ndarray]) -> None:
        with session.open(bundle) as opened:
            results = opened.run(feeds)
            assert opened.outputs == ("scores", "twice")
        assert list(results) == ["scores", "twice"]
        np.testing.assert_array_equal(results["scores"], SCORES)
        np.testing.assert_array_equal(results["twice"], 2 * SCORES)

    def test_chosen_outputs(self, bundle: Bundle, feeds: dict[str, np.ndarray]) -> None:
        with session.open(bundle) as opened:
            assert list(opened.run(feeds, ["twice"])) == ["twice"]
            assert list(opened.run(feeds, "twice")) == ["twice"]
            assert list(opened.run(feeds, ("twice", "scores"))) == ["twice", "scores"]

    def test_inner_tensors(self, bundle: Bundle, feeds: dict[str, np.ndarray]) -> None:
        with session.open(bundle) as opened:
            for names in (["moved"], ["column", "scores"], ["moved"]):
                results = opened.run(feeds, names)
                assert list(results) == names
            np.testing.assert_array_equal(results["moved"], np.maximum(feeds["image"], 0))
            np.testing.assert_array_equal(opened.run(feeds)["scores"], SCORES)

    def test_unknown_tensor_suggests_the_nearest(self, bundle: Bundle, feeds: dict[str, np.ndarray]) -> None:
        with session.open(bundle) as opened:
            problem = refused(lambda: opened.run(feeds, ["mover"]))
            assert problem.code == "E231"
            assert "`mover`" in problem.message
            assert "`moved`" in str(problem)
            np.testing.assert_array_equal(opened.run(feeds)["scores"], SCORES)

    def test_any_batch(self, bundle: Bundle) -> None:
        rng = np.random.default_rng(0)
        with session.open(bundle) as opened:
            for batch in (1, 2, 3, 7, 2, 1, 64):
                image = rng.standard_normal((batch, 3)).astype(np.float32)
                shift = shifts(bundle, np.arange(batch))
                results = opened.run({"image": image, "shift": shift})
                np.testing.assert_allclose(results["scores"], np.maximum(image, 0) + shift[:, None].astype(np.float32))

    def test_results_are_not_overwritten_by_the_next_run(self, bundle: Bundle, feeds: dict[str, np.ndarray]) -> None:
        with session.open(bundle) as opened:
            first = opened.run(feeds)
            kept = first["scores"].copy()
            opened.run({**feeds, "image": feeds["image"] + 5})
            np.testing.assert_array_equal(first["scores"], kept)
            first["scores"][:] = 0  # writable, and the session's own
        np.testing.assert_array_equal(first["twice"], 2 * kept)

    def test_inputs_are_read_only_to_the_runtime(self, bundle: Bundle, feeds: dict[str, np.ndarray]) -> None:
        frozen = {name: array.copy() for name, array in feeds.items()}
        for array in frozen.values():
            array.flags.writeable = False
        strided = np.zeros((1, 6), np.float32)
        strided[:, ::2] = feeds["image"]
        with session.open(bundle) as opened:
            np.testing.assert_array_equal(opened.run(frozen)["scores"], SCORES)
            np.testing.assert_array_equal(opened.run({**frozen, "image": strided[:, ::2]})["scores"], SCORES)
        np.testing.assert_array_equal(frozen["image"], feeds["image"])

    def test_nan_and_infinity_pass_through(self, bundle: Bundle) -> None:
        image = np.array([[np.nan, np.inf, -np.inf]], np.float32)
        with session.open(bundle) as opened:
            scores = opened.run({"image": image, "shift": shifts(bundle, [0])})["scores"]
        assert np.isinf(scores[0, 1])
        assert scores[0, 2] == 0


class TestInputs:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda it: it.pop("shift"), ("`image`", "`shift`")),
            (lambda it: it.__setitem__("more", it["image"]), ("`more`",)),
            (lambda it: it.__setitem__("image", it["image"].astype(np.float64)), ("`image` is float64", "float32")),
            (lambda it: it.__setitem__("shift", it["shift"].astype(np.int32)), ("`shift` is int32", "SHIFT")),
            (lambda it: it.__setitem__("image", it["image"].tolist()), ("`image` is list",)),
            (lambda it: it.__setitem__("image", None), ("`image` is NoneType",)),
            (lambda it: it.__setitem__("image", it["image"][0]), ("[3]", "float32[N, 3]")),
            (lambda it: it.__setitem__("image", it["image"][:, :2]), ("[1, 2]", "float32[N, 3]")),
            (lambda it: it.__setitem__("image", it["image"][None]), ("[1, 1, 3]",)),
            (lambda it: it.__setitem__("image", np.array(["a", "b", "c"])), ("`image` is str",)),
            (lambda it: it.__setitem__("image", it["image"].astype(">f4")), ("byte order",)),
        ],
    )
    def test_that_do_not_fit_are_named(
        self, bundle: Bundle, feeds: dict[str, np.ndarray], change: Callable[[dict], None], words: tuple[str, ...]
    ) -> None:
        change(feeds)
        with session.open(bundle) as opened:
            problem = refused(lambda: opened.run(feeds))
        assert problem.code == "E230"
        wanted = [shifts(bundle, []).dtype.name if word == "SHIFT" else word for word in words]
        assert all(word in problem.message for word in wanted), problem.message

    def test_batches_that_differ(self, bundle: Bundle) -> None:
        with session.open(bundle) as opened:
            problem = refused(
                lambda: opened.run({"image": np.zeros((2, 3), np.float32), "shift": shifts(bundle, [0] * 3)})
            )
            assert (problem.code, problem.message) == ("E230", "`N` is 2 in input `image`, but 3 in `shift`")
            assert opened.run({"image": np.zeros((2, 3), np.float32), "shift": shifts(bundle, [0] * 2)})


class TestLife:
    @pytest.mark.parametrize("threads", [0, -1])
    def test_threads_below_one(self, bundle: Bundle, threads: int) -> None:
        assert refused(lambda: session.open(bundle, threads=threads)).code == "E103"

    def test_use_after_close(self, bundle: Bundle, feeds: dict[str, np.ndarray]) -> None:
        opened = session.open(bundle)
        opened.run(feeds, ["moved"])
        opened.close()
        opened.close()
        problem = refused(lambda: opened.run(feeds))
        assert (problem.code, "`net`" in problem.message) == ("E233", True)
        assert refused(lambda: opened.run(feeds, ["moved"])).code == "E233"

    def test_opened_twice(self, bundle: Bundle, feeds: dict[str, np.ndarray]) -> None:
        with session.open(bundle) as one, session.open(bundle.path) as two:
            one.close()
            np.testing.assert_array_equal(two.run(feeds)["scores"], SCORES)

    def test_two_sessions_in_two_threads_give_the_same(self, bundle: Bundle) -> None:
        rng = np.random.default_rng(0)
        inputs = [
            {
                "image": rng.standard_normal((n % 3 + 1, 3)).astype(np.float32),
                "shift": shifts(bundle, np.arange(n % 3 + 1)),
            }
            for n in range(60)
        ]
        with session.open(bundle) as opened:
            wanted = [opened.run(item)["scores"] for item in inputs]
        results: dict[int, list[np.ndarray]] = {}

        def work(number: int, opened: session.Session) -> None:
            results[number] = [opened.run(item)["scores"] for item in inputs]

        with session.open(bundle) as one, session.open(bundle, threads=2) as two:
            workers = [threading.Thread(target=work, args=pair) for pair in ((0, one), (1, two), (2, two))]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        assert set(results) == {0, 1, 2}
        for got in results.values():
            for array, expected in zip(got, wanted, strict=True):
                np.testing.assert_array_equal(array, expected)

    def test_a_broken_bundle_is_refused(self, bundle: Bundle) -> None:
        file = next(bundle.path / name for name in bundle.files if (bundle.path / name).stat().st_size)
        file.write_bytes(file.read_bytes()[:-1])
        assert refused(lambda: session.open(bundle.path)).code == "E220"

    def test_a_file_that_the_library_rejects(self, bundle: Bundle) -> None:
        """A Bundle object whose files were exchanged after it was opened: hashes are not looked at again."""
        for name in bundle.files:
            (bundle.path / name).write_bytes(b"no network")
        assert refused(lambda: session.open(bundle)).code in ("E201", "E232")


class TestCut:
    def test_part_of_the_network(self, bundle: Bundle) -> None:
        with session.open(bundle, cut=Cut(("moved", "column"), ("twice",))) as part:
            assert [info.name for info in part.inputs] == ["moved", "column"]
            assert part.outputs == ("twice",)
            results = part.run({"moved": np.ones((2, 3), np.float32), "column": np.ones((2, 1), np.float32)})
        np.testing.assert_array_equal(results["twice"], np.full((2, 3), 4.0, np.float32))

    def test_tap_inside_a_part(self, bundle: Bundle) -> None:
        with session.open(bundle, cut=Cut(("moved", "column"), ("twice",))) as part:
            inputs = {"moved": np.ones((1, 3), np.float32), "column": np.ones((1, 1), np.float32)}
            np.testing.assert_array_equal(part.run(inputs, ["scores"])["scores"], np.full((1, 3), 2.0, np.float32))

    def test_does_not_change_the_bundle(self, bundle: Bundle) -> None:
        with session.open(bundle, cut=Cut(("moved", "column"), ("twice",))):
            pass
        assert Bundle.open(bundle.path).hash == bundle.hash

    def test_inputs_that_are_not_enough(self, bundle: Bundle) -> None:
        problem = refused(lambda: session.open(bundle, cut=Cut(("moved",), ("twice",))))
        assert problem.code == "E231"
        # Files of these no longer read `image` for the type that CastLike takes from it.
        assert ("`shift`" if bundle.runtime in ("litert", "native", "ncnn") else "`image`") in problem.message

    @pytest.mark.parametrize("cut", [Cut(("nowhere",), ("twice",)), Cut(None, ("nowhere",)), Cut(("moved",), ())])
    def test_tensors_that_do_not_exist(self, bundle: Bundle, cut: Cut) -> None:
        assert refused(lambda: session.open(bundle, cut=cut)).code == "E231"

    def test_wrong_inputs(self, bundle: Bundle) -> None:
        with session.open(bundle, cut=Cut(("moved", "column"), ("twice",))) as part:
            right = {"moved": np.ones((1, 3), np.float32), "column": np.ones((1, 1), np.float32)}
            assert refused(lambda: part.run({"moved": right["moved"]})).code == "E230"
            # Plain numpy computes whatever it can broadcast; it is never deployed.
            array = right["moved"]
            odd = [] if bundle.runtime == "reference" else [array.astype(np.float64), array[0, 0], array[:, :2]]
            for wrong in odd:
                assert refused(lambda wrong=wrong: part.run({**right, "moved": wrong})).code in ("E230", "E232")
            assert part.run(right)


class TestModel:
    def test_runs_on_the_exact_runtime_by_default(self, model: Model, feeds: dict[str, np.ndarray]) -> None:
        with session.open(model) as opened:
            assert opened.bundle.runtime == session.exact_runtime() == "onnxruntime"
            np.testing.assert_array_equal(opened.run(feeds)["scores"], SCORES)

    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_temporary_files_go_with_the_session(self, model_from_text: Callable[..., Model], runtime: str) -> None:
        with session.open(net_for(runtime, model_from_text), runtime=runtime) as opened:
            folder = opened.bundle.path
            assert folder.is_dir()
        assert not folder.exists()

    def test_temporary_files_go_with_a_session_that_was_dropped(self, model: Model) -> None:
        opened = session.open(model)
        folder = opened.bundle.path
        del opened
        gc.collect()
        assert not folder.exists()

    def test_nothing_is_left_when_opening_fails(
        self, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        assert refused(lambda: session.open(model, cut=Cut(None, ("nowhere",)))).code == "E231"
        assert refused(lambda: session.open(model, runtime="nothing")).code == "E101"
        assert list(tmp_path.iterdir()) == []
