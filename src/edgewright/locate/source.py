"""Source -> ONNX: the network against tensors that the framework it comes from has computed.

The tensors lie in an .npz, or as .npy files in a folder, under the network's tensor names; whole, in any shape of the same
memory, or thinned by a stride. A stretch whose inputs were kept whole is judged alone, fed the source's values. Where they
were not, the first tensor that is off although everything it is made of is right shows the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgewright import metrics, original, registry, session
from edgewright.contracts import Cut
from edgewright.errors import EdgewrightError
from edgewright.locate import thinning
from edgewright.locate.stages import Plan, Stage, batches, plan
from edgewright.locate.thinning import WHOLE, Thinning
from edgewright.locate.walk import Failure
from edgewright.model import Arrays, Model
from edgewright.progress import Progress
from edgewright.records import TensorError
from edgewright.samples.archives import Archive
from edgewright.samples.images import BrokenSampleError
from edgewright.session import Session

#: The network's values, the source's, and those of the stretches are held at once.
_SHARES = 8
#: So many strides that fit a size are tried; of more, one must be given.
_MOST_STRIDES = 64


class Stored:
    """The source's tensors in an .npz, or a folder of .npy files; each is read when it is asked for.

    Attributes:
        path: Where.
        names: Of the tensors.
        stride: Of what is thinned; None: found by size.
    """

    def __init__(self, path: Path, stride: int | None = None) -> None:
        self.path, self.stride = path, stride
        self._archive: Archive | None = None
        if path.is_dir():
            self.names: tuple[str, ...] = tuple(sorted(file.stem for file in path.glob("*.npy")))
        elif path.is_file():
            with _sound(path):
                self._archive = Archive(path)
            self.names = tuple(self._archive.members)
        else:
            raise EdgewrightError("E104", f"`{path}` does not exist", hint="ls " + str(path.parent))
        if not self.names:
            raise EdgewrightError("E201", f"`{path}` holds no tensors")

    def array(self, name: str) -> np.ndarray:
        """One tensor as it was kept."""
        with _sound(self.path):
            value = self._archive.whole(name) if self._archive else _npy(self.path / f"{name}.npy")
        if value.dtype.kind not in "biuf":
            raise EdgewrightError("E201", f"tensor `{name}` in `{self.path}` is {value.dtype}, but must hold numbers")
        return value

    def inputs(self, model: Model) -> dict[str, np.ndarray] | None:
        """The network's inputs, where all of them were kept; None else."""
        if not {info.name for info in model.inputs} <= set(self.names):
            return None
        found = {}
        for info in model.inputs:
            value = self.array(info.name)
            if value.ndim == len(info.shape) - 1:  # without the batch
                value = value[None]
            found[info.name] = value.astype(info.dtype, copy=False)
        return found

    def matched(self, name: str, own: np.ndarray) -> tuple[Thinning, np.ndarray] | str:
        """(what of `own` was kept, the source's values there), or why they cannot be compared."""
        value = self.array(name)
        if value.size == own.size:
            bare = [size for size in value.shape if size != 1] == [size for size in own.shape if size != 1]
            flat = value.ndim < 2 or bare
            return WHOLE, value.reshape(own.shape) if flat else value.reshape(
                (1,) * (own.ndim - value.ndim) + value.shape
            )
        if value.ndim > 1 or value.size > own.size or not value.size:
            return f"the source's has shape {list(value.shape)}, this network's {list(own.shape)}"
        fitting = thinning.strides(value.size, own.size)
        if self.stride is not None:
            fitting = fitting if self.stride not in fitting else range(self.stride, self.stride + 1)
        if not 0 < len(fitting) <= _MOST_STRIDES:
            return (
                f"the source's has {value.size} values, and the stride that leaves so many of {own.size} is not known"
            )
        tried = [thinning.by(stride, own.shape) for stride in fitting]
        found = min(tried, key=lambda item: _distance(item.of_stored(value), item.of(own)))
        return found, found.of_stored(value)


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenSampleError as problem:
        raise EdgewrightError("E201", f"`{path}`: {problem}") from None


def _npy(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except OSError as problem:
        raise BrokenSampleError(f"`{path.name}` cannot be read: {problem.strerror or problem}") from None
    except (ValueError, EOFError) as problem:
        raise BrokenSampleError(f"`{path.name}` is not a sound .npy file: {problem}") from None


def _distance(kept: np.ndarray, own: np.ndarray) -> float:
    distance = metrics.rel_l2(kept, own)
    return math.inf if math.isnan(distance) else distance


class SourceWalk:
    """Compares tensor by tensor; the attributes are those of `walk.Walk`, filled by `run`.

    Attributes:
        stages: What is compared.
        isolated: Error of each stretch fed the source's values; not a number where these were not kept whole.
        cumulative: Error of the network up to each tensor.
        noise: rel-L2 between two exact evaluations up to each tensor, where there are two.
        failing: Names of the stages that are wrong themselves, or cannot be compared.
        failure: The first of them in graph order, or None.
        limits: Float32's.
        model: The network.
        stored: The source's tensors.
        unpaired: Names of those that the network does not have.
    """

    def __init__(
        self, model: Model, stored: Stored, inputs: Arrays, *, sample: str, threads: int, progress: Progress
    ) -> None:
        self.stages: Plan = plan(model, stored.names, inputs)
        self.isolated: dict[str, TensorError] = {}
        self.cumulative: dict[str, TensorError] = {}
        self.noise: dict[str, float] = {}
        self.failing: dict[str, None] = {}
        self.failure: Failure | None = None
        self.limits = original.Limits("fp32", original.FP32_REL_L2, original.FP32_REL_L2)
        self.model, self.stored, self._inputs, self._sample = model, stored, inputs, sample
        self._threads, self._progress = threads, progress
        made = {value.name for node in model.ir.graph for value in node.outputs}
        self.unpaired = tuple(name for name in stored.names if name not in made and name not in inputs)
        self._right = set(inputs)  # tensors that are the source's within rounding

    def run(self, budget_bytes: int) -> None:
        """Compare everything, holding about `budget_bytes`."""
        total, done = len(self.stages.stages), 0
        self._progress.update("locate", 0, total)
        with ExitStack() as stack:
            exact = stack.enter_context(original.open_original(self.model, threads=self._threads))
            second = self._second(stack)
            for chunk in self.stages.chunks(budget_bytes // _SHARES):
                self._compare_chunk(chunk, exact, second)
                done += len(chunk)
                self._progress.update("locate", done, total)

    def _second(self, stack: ExitStack) -> Session | None:
        """The other exact evaluation, for the noise floor."""
        reference = original.reference_runtime()
        if reference is None or registry.peek("runtimes", reference).supports(self.model.ir):
            self._progress.note("no second exact runtime can run this network: the noise floor is taken as 0")
            return None
        return stack.enter_context(session.open(self.model, runtime=reference, threads=self._threads))

    def _compare_chunk(self, chunk: Sequence[Stage], exact: Session, second: Session | None) -> None:
        names = tuple(dict.fromkeys(name for stage in chunk for name in (*stage.inputs, stage.name)))
        inner = tuple(name for name in names if name not in self._inputs)
        own = dict(self._inputs) | exact.run(self._inputs, inner)
        found = {name: self.stored.matched(name, own[name]) for name in inner}
        ends = tuple(stage.name for stage in chunk)
        if second is not None:
            for name, other in second.run(self._inputs, ends).items():
                self.noise[name] = _distance(own[name], other)
        alone = dict(self._alone(chunk, own, found))
        for stage in chunk:
            match = found[stage.name]
            if isinstance(match, str):
                self._unreadable(stage, match)
            else:
                self._judge(stage, own, *match, alone.get(stage.name))

    def _alone(
        self, chunk: Sequence[Stage], own: Arrays, found: Mapping[str, tuple[Thinning, np.ndarray] | str]
    ) -> Iterator[tuple[str, tuple[Arrays, np.ndarray]]]:
        """(name, (the source's values at the start, what the network makes of them)) of stretches that can be fed."""
        fed = dict(self._inputs)
        for name, match in found.items():
            if not isinstance(match, str) and match[0] is WHOLE and match[1].shape == own[name].shape:
                fed[name] = match[1].astype(own[name].dtype)
        fitting = [stage for stage in chunk if all(name in fed for name in stage.inputs)]
        for batch in batches(fitting):
            names = tuple(dict.fromkeys(name for stage in batch for name in stage.inputs))
            cut = Cut(names, tuple(stage.name for stage in batch))
            with session.open(self.model, runtime=session.exact_runtime(), threads=self._threads, cut=cut) as opened:
                results = opened.run({name: fed[name] for name in names})
            for stage in batch:
                yield stage.name, ({name: fed[name] for name in stage.inputs}, results[stage.name])

    def _judge(
        self, stage: Stage, own: Arrays, seen: Thinning, kept: np.ndarray, alone: tuple[Arrays, np.ndarray] | None
    ) -> None:
        name, noise = stage.name, self.noise.get(stage.name, 0.0)
        self.cumulative[name] = self._error(name, seen, kept, own[name])
        self.isolated[name] = self._error(name, seen, kept, alone[1]) if alone else TensorError(name=name)
        whole, limit = self.cumulative[name], self.limits.cumulative_at(noise)
        if not whole.problem and whole.rel_l2 <= limit:
            self._right.add(name)
        if alone:
            inputs, result, error = *alone, self.isolated[name]
            wrong = bool(error.problem) or not error.rel_l2 <= self.limits.isolated_at(noise)
        else:
            inputs, result, error = {key: own[key] for key in stage.inputs}, own[name], whole
            wrong = name not in self._right and self._right.issuperset(stage.inputs)
        if wrong:
            came, file = seen.of(result), self.stored.path
            self._fail(Failure(stage, self.model, inputs, came, kept, error, noise, seen, file, self._inputs))

    def _unreadable(self, stage: Stage, problem: str) -> None:
        error = TensorError(name=stage.name, problem=problem, worst_sample=self._sample)
        self.isolated[stage.name] = self.cumulative[stage.name] = error
        nothing = np.zeros(0, np.float32)
        self._fail(Failure(stage, self.model, {}, nothing, None, error, 0.0, WHOLE, self.stored.path))

    def _fail(self, failure: Failure) -> None:
        self.failing[failure.stage.name] = None
        self.failure = self.failure or failure  # stages come in graph order

    def _error(self, name: str, seen: Thinning, kept: np.ndarray, own: np.ndarray) -> TensorError:
        """The source is the reference."""
        error = metrics.tensor_error(name, kept, seen.of(own), sample=self._sample)
        return replace(error, max_abs_index=seen.index(error.max_abs_index, own.shape))
