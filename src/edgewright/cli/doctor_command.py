"""`edgewright doctor`: is everything here that the work needs?"""

from __future__ import annotations

from typing import Any

from edgewright.cli.common import Terminal, edgewright_command
from edgewright.cli.tables import plural

_INT8 = {
    True: "dot products (VNNI or Arm): int8 is fast and exact",
    False: "no dot products: full-range int8 weights saturate, 7-bit ones do not",
}


@edgewright_command(name="doctor", short_help="Check this machine and its runtimes")
def command(terminal: Terminal) -> int:
    """Check this machine: CPU, runtimes (each runs a small network), the int8 format each executes fast, extras."""
    from edgewright.records import Environment
    from edgewright.target import Target

    environment = Environment.here()
    runtimes = _runtimes()
    document = {"environment": environment.to_json(), "has_int8_dot": Target().has_int8_dot, "runtimes": runtimes}

    def render(console: Any) -> None:
        from edgewright.cli.tables import table

        versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
        memory = f"{environment.memory_bytes / 1e9:.1f} GB of memory"
        rows = [
            ["cpu", f"{environment.cpu}, {plural(environment.cores, 'core')}, {memory}"],
            ["features", " ".join(environment.cpu_features) or "unknown"],
            ["int8", _INT8[Target().has_int8_dot]],
            ["python", f"{environment.python}, {versions}"],
        ]
        table(console, [[(name, "bold"), text] for name, text in rows])
        console.print("\n[bold]runtimes[/]")
        marks = {True: ("works", "green"), False: ("broken", "red")}
        table(
            console,
            [
                [row["name"], ("absent", "yellow") if row["missing"] else marks[row["works"]], row["about"]]
                for row in runtimes
            ],
            indent=2,
        )

    terminal.emit(document, render)
    broken = [row["name"] for row in runtimes if not row["works"] and not row["missing"]]
    if not broken:
        terminal.next("edgewright demo")
    return 2 if broken else 0


def _runtimes() -> list[dict[str, Any]]:
    from edgewright import registry
    from edgewright.target import Target

    rows = []
    for name in registry.names("runtimes"):
        module = registry.peek("runtimes", name)
        missing = list(registry.missing(module.EXTRA))
        if missing:
            rows.append(
                {"name": name, "works": False, "missing": missing, "about": f'pip install "edgewright[{module.EXTRA}]"'}
            )
            continue
        problem = _try(name)
        form = module.quant_format(Target(name))
        about = problem or f"{module.version()}; {', '.join(module.TRAITS.precisions)}" + (
            f"; int8: {form.reason}" if form else ""
        )
        rows.append({"name": name, "works": problem is None, "missing": [], "about": about})
    return rows


def _try(runtime: str) -> str | None:
    """What goes wrong when the runtime runs `y = relu(x)`, or None."""
    import numpy as np
    import onnx_ir as ir

    from edgewright.errors import EdgewrightError
    from edgewright.model import Model
    from edgewright.session import open as open_session

    graph = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }'
    )
    x = np.array([[-1, 0, 1, 2]], np.float32)
    try:
        with open_session(Model(graph), runtime=runtime) as session:
            y = session.run({"x": x})["y"]
    except EdgewrightError as problem:
        return problem.message
    return None if np.array_equal(y, np.maximum(x, 0)) else f"relu gave {y.tolist()}"
