"""`edgewright compress`: one recipe on one model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgewright.cli.common import Terminal, edgewright_command, load_network, open_samples, quoted
from edgewright.cli.tables import size
from edgewright.errors import EdgewrightError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgewright.bench.stopwatch import Stopwatch
    from edgewright.model import Model, Step
    from edgewright.recipe import Recipe
    from edgewright.samples import Samples
    from edgewright.target import Target


@edgewright_command(name="compress", short_help="One recipe on one model")
@click.argument("model")
@click.option(
    "--recipe", default="float", show_default=True, metavar="NAME|FILE", help="What to do (edgewright list recipes)."
)
@click.option("--samples", metavar="PATH", help="Unlabelled samples, for recipes that read some.")
@click.option("--spec", metavar="FILE", help="Spec of the model.")
@click.option("--runtime", default="onnxruntime", show_default=True, help="Runtime to compress for.")
@click.option("--cpu", default="host", show_default=True, help="CPU to compress for (edgewright list cpus).")
@click.option(
    "--min-agreement",
    type=float,
    default=0.98,
    show_default=True,
    help="Agreement with the original for which layers are kept in float.",
)
@click.option("--out", metavar="FILE", required=True, help="The .onnx file to write.")
@click.option("--seed", type=int, default=0, show_default=True)
def command(
    terminal: Terminal,
    model: str,
    recipe: str,
    samples: str | None,
    spec: str | None,
    runtime: str,
    cpu: str,
    min_agreement: float,
    out: str,
    seed: int,
) -> int:
    """Make a model smaller or simpler by a recipe and write it as ONNX, with its history inside."""
    from edgewright.compress import compress
    from edgewright.recipe import Recipe
    from edgewright.target import Target

    chosen = Recipe.named(recipe)
    _check_sets(terminal, chosen)
    if terminal.options.dry_run:
        terminal.emit(
            {"would_run": [step.name for step in chosen.steps], "out": out},
            lambda console: console.print(" -> ".join((*(step.name for step in chosen.steps), out)), markup=False),
        )
        return 0
    network = load_network(terminal, model, spec)
    opened = open_samples(terminal, samples, network) if samples else None
    overrides = {name: v for name, v in terminal.options.sets.items() if name in {s.name for s in chosen.steps}}
    target = Target(runtime, cpu)
    with terminal.progress() as progress:
        small = compress(
            network,
            chosen,
            opened,
            target=target,
            overrides=overrides,
            min_agreement=min_agreement,
            seed=seed,
            clock=_clock(terminal, target, opened),
            progress=progress,
        )
    path = small.save(out)
    document = {
        "out": str(path),
        "bytes_before": network.weight_bytes(),
        "bytes_after": small.weight_bytes(),
        "steps": [step.to_json() for step in small.history],
    }

    terminal.emit(document, lambda console: _show(terminal, network, small))
    terminal.say(f"saved: {path}")
    _warn(terminal, small.history[len(network.history) :], min_agreement)
    terminal.next(
        f"edgewright convert {quoted(path, '--runtime', runtime, '--out', f'bundles/{chosen.name}-{runtime}')}"
    )
    return 0


def _clock(terminal: Terminal, target: Target, samples: Samples | None) -> Stopwatch | None:
    """What passes may measure time with; None where this machine lacks what the target's CPU has, or the runtime."""
    from edgewright import registry
    from edgewright.bench.stopwatch import Stopwatch

    if target.runtime not in registry.installed("runtimes") or not Stopwatch.can_measure(target):
        return None
    options = terminal.options.sets.get(target.runtime, {})
    return Stopwatch(target, samples, threads=terminal.options.threads, options=options)


def _show(terminal: Terminal, network: Model, small: Model) -> None:
    for step in small.history[len(network.history) :]:
        facts = ", ".join(f"{key} {value}" for key, value in step.stats.items() if isinstance(value, (int, float, str)))
        terminal.console.print(f"{step.name}: {facts or 'done'}", markup=False)
    before, after = size(network.weight_bytes()), size(small.weight_bytes())
    terminal.console.print(f"weights: {before} -> {after}", markup=False)


def _warn(terminal: Terminal, steps: Sequence[Step], min_agreement: float) -> None:
    """Say plainly where training ended short of what was asked: the file was written all the same."""
    told = [step.stats for step in steps if isinstance(step.stats.get("after"), float) and step.stats.get("select")]
    if told and told[-1]["after"] < min_agreement:
        terminal.say(
            f"warning: on {told[-1]['select']} select samples it agrees with the original in {told[-1]['after']:.1%}, and "
            f"{min_agreement:.0%} was asked for: as it is, it cannot stand in for the original"
        )


def _check_sets(terminal: Terminal, recipe: Recipe) -> None:
    """Refuse an option of a pass that the recipe does not run."""
    from edgewright import registry

    for name in terminal.options.sets:
        if name in registry.names("passes") and name not in {step.name for step in recipe.steps}:
            steps = ", ".join(step.name for step in recipe.steps) or "none"
            raise EdgewrightError(
                "E103", f"`--set {name}...`: recipe `{recipe.name}` has no such step; its steps: {steps}"
            )
