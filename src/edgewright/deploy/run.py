"""The folder of one deploy: makes each candidate's bundle once, and remembers what was made from what."""

from __future__ import annotations

import hashlib
import json
import shutil
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgewright import metrics, original, registry
from edgewright.bench.stopwatch import Stopwatch
from edgewright.bundle import Bundle
from edgewright.compress import compress
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.files import write_whole
from edgewright.memo import Memo
from edgewright.model import Model
from edgewright.progress import Progress
from edgewright.recipe import Recipe
from edgewright.records import Candidate, Environment, VerifyReport
from edgewright.target import Target
from edgewright.verify import verify

if TYPE_CHECKING:
    from edgewright.samples import Samples

#: Inside the run's folder: what was expensive to find out.
MEMO = "memo"
_FAILURE_LOG = "failures.log"


@dataclass(frozen=True)
class Planned:
    """One candidate before it is made."""

    recipe: Recipe
    target: Target

    @property
    def name(self) -> str:
        """RECIPE-RUNTIME, as in reports and folder names."""
        return f"{self.recipe.name}-{self.target.runtime}"


class Run:
    """The folder of one deploy: makes each candidate's bundle once and remembers verdicts."""

    def __init__(
        self,
        out: Path,
        model: Model,
        samples: Samples,
        overrides: Mapping[str, Mapping[str, Any]],
        seed: int,
        progress: Progress,
        threads: int = 1,
    ) -> None:
        self.threads, self.memo = threads, Memo(out / MEMO)
        self.out, self.model, self.samples, self.overrides, self.seed = out, model, samples, overrides, seed
        self.progress = progress
        self._compressed: tuple[str, Model] | None = None
        self._answers: original.Answers | None = None
        self.bundles: dict[str, Bundle] = {}
        self._hashes: dict[tuple[str, str], str] = {}
        self._states: dict[str, Literal["chosen", "verified", "rejected", "failed"]] = {}
        self._state = read_state(out, model)
        try:
            out.mkdir(parents=True, exist_ok=True)
            for leftover in (out / "bundles").glob(".*"):  # staging folders of a run that was killed
                shutil.rmtree(leftover)
        except OSError as problem:
            raise _unusable(out, problem) from None
        self._save_state()

    def judge(self, item: Planned, budget: Mapping[str, Any], done: int, total: int) -> Candidate:
        """Make and verify one candidate; a problem becomes its reason instead of ending the run.

        Raises:
            EdgewrightError: E105 when the run's folder cannot be written.
        """
        candidate = self._judge(item, budget, done, total)
        self._states[item.name] = candidate.state
        return candidate

    def _judge(self, item: Planned, budget: Mapping[str, Any], done: int, total: int) -> Candidate:
        self.progress.update(f"make and verify {item.name}", done, total)
        blank = Candidate(
            name=item.name, recipe=item.recipe.name, runtime=item.target.runtime, state="failed", reason=""
        )
        try:
            bundle = self.make(item, self.aim(budget["min_agreement"]))
            blank = replace(
                blank,
                bundle=f"bundles/{item.name}",
                size_bytes=bundle.size_bytes,
                precision=bundle.precision,
                state="rejected",
            )
            twin = self._hashes.setdefault((bundle.runtime, bundle.hash), item.name)
            if twin != item.name:
                return replace(blank, state=self._states[twin], reason=f"the same files as {twin}")
            verdict = self._verify(bundle, budget)
        except EdgewrightError as problem:
            if problem.code == "E105":  # no space, no right: it would meet every other candidate as well
                hint = problem.hint or "make room, then give the same command again: it goes on where it stopped"
                raise EdgewrightError(problem.code, problem.message, details=problem.details, hint=hint) from None
            return replace(blank, reason=f"{problem.message} [{problem.code}]")
        except Exception as problem:
            self._log(item.name)
            return replace(blank, reason=f"a bug: {type(problem).__name__}: {problem} (see {_FAILURE_LOG})")
        if verdict.decision != "pass":
            return replace(blank, verify=verdict, reason=_why_not(verdict))
        return replace(blank, verify=verdict, state="verified", reason="verified")

    def aim(self, required: float) -> float:
        """The agreement that compression should reach, so that so many judges can prove the required one."""
        if not registry.get("tasks", self.model.spec.task).PROPORTION:
            return required
        judges = len(set(self.samples.role("judge").groups))
        return metrics.share_to_pass(required, judges) or required

    def make(self, item: Planned, min_agreement: float) -> Bundle:
        """The candidate's bundle, made once; `min_agreement` is what compression should reach.

        Raises:
            EdgewrightError: What its recipe or its runtime cannot do.
        """
        folder = self.out / "bundles" / item.name
        key = self._key(item, min_agreement)
        if self._state["candidates"].get(item.name) == key and folder.is_dir():
            try:
                bundle = Bundle.open(folder)
                self.progress.note(f"{item.name}: made before, taken up again")
            except EdgewrightError as problem:
                self.progress.note(f"{item.name}: made again, since {problem.message}")
            else:
                self.bundles[item.name] = bundle
                return bundle
        network = self._compress(item, min_agreement)
        options = item.recipe.convert.get(item.target.runtime, {})
        options = {**options, **self.overrides.get(item.target.runtime, {})}
        bundle = convert(network, item.target, folder, options=options, name=item.name, overwrite=True)
        self.bundles[item.name] = bundle
        self._state["candidates"][item.name] = key
        self._save_state()
        return bundle

    def _compress(self, item: Planned, min_agreement: float) -> Model:
        form = registry.peek("runtimes", item.target.runtime).quant_format(item.target)
        key = f"{item.recipe.to_mapping()} {form}"
        if self._compressed is None or self._compressed[0] != key:
            passes = {step.name for step in item.recipe.steps}
            overrides = {name: values for name, values in self.overrides.items() if name in passes}
            network = compress(
                self.model,
                item.recipe,
                self.samples,
                target=item.target,
                overrides=overrides,
                min_agreement=min_agreement,
                seed=self.seed,
                clock=self._clock(item),
                memo=self.memo,
                progress=self.progress,
            )
            self._compressed = (key, network)
        return self._compressed[1]

    def _clock(self, item: Planned) -> Stopwatch | None:
        """What passes may measure time with; None where this machine lacks what the target's CPU has."""
        if not Stopwatch.can_measure(item.target):
            return None
        options = {**item.recipe.convert.get(item.target.runtime, {}), **self.overrides.get(item.target.runtime, {})}
        return Stopwatch(item.target, self.samples, threads=self.threads, options=options, seed=self.seed)

    def _verify(self, bundle: Bundle, budget: Mapping[str, Any]) -> VerifyReport:
        asked = {**budget, "samples": self.samples.role("judge").hash, "seed": self.seed}
        for document in bundle.evidence("deploy-verify"):
            if document.get("asked") == asked:
                return VerifyReport.from_json(document["verdict"])
        if self._answers is None or self._answers.threads != budget["threads"]:
            self._answers = original.Answers(self.model, threads=budget["threads"])
        verdict = verify(
            self.model,
            bundle,
            self.samples,
            min_agreement=budget["min_agreement"],
            max_drop=budget["max_drop"],
            threads=budget["threads"],
            seed=self.seed,
            answers=self._answers,
            progress=self.progress,
        )
        bundle.add_evidence("deploy-verify", {"asked": asked, "verdict": verdict.to_json()})
        return verdict

    def _key(self, item: Planned, min_agreement: float) -> str:
        plugin = registry.peek("runtimes", item.target.runtime)
        reads = any(registry.peek("passes", step.name).NEEDS_SAMPLES for step in item.recipe.steps)
        content = [
            self.model.hash,
            item.recipe.to_mapping(),
            self.overrides,
            item.target.cpu,
            item.target.features,
            plugin.version(),
            Environment.here().versions.get("edgewright"),
            (self.samples.hash, min_agreement) if reads else "",
            self.seed,
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def _save_state(self) -> None:
        write_whole(self.out / "run.json", json.dumps(self._state, indent=1))

    def _log(self, name: str) -> None:
        with (self.out / _FAILURE_LOG).open("a", encoding="utf-8") as stream:
            stream.write(f"{name}\n{traceback.format_exc()}\n")


def read_state(out: Path, model: Model) -> dict[str, Any]:
    """What the run folder `out` says was made already; nothing where it does not exist or is empty. Writes nothing.

    Raises:
        EdgewrightError: E105 when `out` is a file, or holds something else or a run of another network.
    """
    path = out / "run.json"
    try:
        if not path.exists():
            if out.exists() and any(out.iterdir()):
                raise EdgewrightError(
                    "E105", f"folder `{out}` holds something that is no run", hint="choose another --out"
                )
            return {"origin": model.hash, "candidates": {}}
        state = json.loads(path.read_text(encoding="utf-8"))
        origin, known = state["origin"], dict(state["candidates"])
    except (ValueError, KeyError, TypeError):
        raise EdgewrightError("E105", f"`{path}` is malformed", hint=f"rm -r {out}") from None
    except OSError as problem:
        raise _unusable(out, problem) from None
    if origin != model.hash:
        raise EdgewrightError(
            "E105", f"folder `{out}` holds a run of another network ({origin[:12]})", hint="choose another --out"
        )
    return {"origin": origin, "candidates": known}


def _unusable(out: Path, problem: OSError) -> EdgewrightError:
    return EdgewrightError(
        "E105", f"run folder `{out}` cannot be used: {problem.strerror}", hint="choose another --out"
    )


def _why_not(verdict: VerifyReport) -> str:
    gate = next(gate for gate in verdict.gates if gate.decision == verdict.decision)
    if verdict.decision == "undecided" and verdict.samples_needed:
        more = gate.message.rpartition("; ")[2]
        few = "1 sample is" if verdict.samples == 1 else f"{verdict.samples} samples are"
        return f"{few} too few for {gate.name} of {100 * gate.required:g} %; {more}"
    return f"{gate.message}; {verdict.saturation.message}" if verdict.saturation else gate.message
