"""The table of `edgewright deploy`: medians are printed with the certainty that they have."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from edgewright.cli.deploy_command import print_outcome
from edgewright.environment import Environment
from edgewright.records import BenchResult, Candidate, DeployOutcome, Timing

RESULT = BenchResult(
    bundle_hash="h", bundle_name="n", runtime="r 1", precision="fp32", threads=1, pre=None, post=None,
    infer=Timing(median_ms=10.0, low_ms=9.9, high_ms=10.1, p90_ms=11.0, p99_ms=12.0, mean_ms=10.0, runs=99),
    peak_memory_bytes=1, load_ms=1.0, size_bytes=1, trust="trusted", reasons=(), telemetry={},
)  # fmt: skip


def test_a_median_that_is_only_roughly_known_is_marked() -> None:
    rough = replace(RESULT, infer=replace(RESULT.infer, median_ms=14.0, low_ms=13.2, high_ms=14.8))
    rows = [("fast", (RESULT,)), ("slow", (rough,)), ("broken", ())]
    candidates = tuple(
        Candidate(name=name, recipe="x", runtime="r", state="verified", reason="why", bench=bench)
        for name, bench in rows
    )
    outcome = DeployOutcome(
        model_name="net", origin="o", chosen=None, candidates=candidates, speedup=None, budget={}, threads=1,
        samples={}, skipped=(), command="", seed=0, environment=Environment.here(), notes=(),
    )  # fmt: skip
    text = io.StringIO()
    print_outcome(Console(file=text, width=200), outcome)
    cells = {line.split()[0]: line.split()[2] for line in text.getvalue().splitlines()[1:4]}
    assert cells == {"fast": "10.0", "slow": "~14.0", "broken": "-"}
