"""native: edgewright's own kernels, for networks with binary layers; float layers around them run as well.

The bundle's `network.plan` lists the steps and where each tensor lies in one block of memory; running it allocates nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.contracts import Conversion, Cut, OpenedBundle, Problem, QuantFormat, Traits
from edgewright.model import Arrays, Model
from edgewright.ops import DOMAIN
from edgewright.runtimes.native.lowering import lower
from edgewright.runtimes.native.plan import FILE, read, write
from edgewright.runtimes.native.running import PlanRunner, open_plan
from edgewright.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA = None
TRAITS = Traits(
    precisions=("fp32", "binary"),
    dynamic_shapes=True,
    taps="native",
    profiles=True,
    functions=True,
    proposed_for=(DOMAIN,),
)


@dataclass(frozen=True)
class Options:
    """None: the graph says all there is to say."""


def version() -> str:
    """Version of edgewright, whose kernels these are."""
    import importlib.metadata

    return importlib.metadata.version("edgewright")


def quant_format(target: Target) -> QuantFormat | None:
    """None: there are no int8 kernels."""
    return None


def supports(ir_model: ir.Model) -> tuple[Problem, ...]:
    """Nodes that no step can do, found by planning the graph without writing it."""
    return lower(ir_model).problems


def convert(model: Model, folder: Path, options: Options, target: Target) -> Conversion:
    """Write `network.plan`."""
    plan = lower(model.ir).plan
    assert plan is not None, "convert.py asks `supports` first"
    write(plan, folder / FILE)
    feeds = ", ".join(f'"{info.name}": ...' for info in model.inputs)
    return Conversion(
        tensor_names={name: name for name in plan.names},
        usage=f"""import edgewright as ew  # the format is edgewright's own: src/edgewright/runtimes/native/plan.py describes it
with ew.open(".", threads=1) as session:
    outputs = session.run({{{feeds}}})""",
    )


def open(bundle: OpenedBundle, *, threads: int, cut: Cut | None = None) -> PlanRunner:
    """The bundle's network, or the part that `cut` names, on `threads` threads.

    Raises:
        EdgewrightError: E231 for a tensor in `cut` that does not exist, E232 where the file is no plan that can run.
    """
    path = bundle.path / FILE
    return open_plan(path, read(path), cut, threads)


def profile(bundle: OpenedBundle, inputs: Arrays, *, threads: int, runs: int) -> dict[str, float]:
    """Milliseconds per run of each step, by the tensor that it makes."""
    runner = open(bundle, threads=threads)
    try:
        return runner.times(inputs, runs)
    finally:
        runner.close()
