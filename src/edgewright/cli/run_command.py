"""`edgewright run`: a bundle or model on samples, results on stdout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgewright.cli.common import Terminal, edgewright_command, is_bundle, load_network, open_samples
from edgewright.errors import EdgewrightError


@edgewright_command(name="run", short_help="Run a bundle or model on photos")
@click.argument("network")
@click.argument("inputs", nargs=-1, required=True)
@click.option("--spec", metavar="FILE", help="Spec of a model.")
@click.option("--runtime", help="Runtime for a model.  [default: onnxruntime]")
@click.option(
    "--tile",
    type=int,
    metavar="PIXELS",
    help="Keep the photo's size: run tiles of the input's size that overlap by so many pixels, and blend their scores.",
)
@click.option("--draw", metavar="DIR", help="Write each photo with its result drawn on it.")
def command(
    terminal: Terminal,
    network: str,
    inputs: tuple[str, ...],
    spec: str | None,
    runtime: str | None,
    tile: int | None,
    draw: str | None,
) -> int:
    """Run NETWORK (a bundle's folder, a pipeline's, a model file or zoo:NAME) on photos, folders or .npz files."""
    from edgewright import registry, tiling
    from edgewright.bundle import PIPELINE, Bundle
    from edgewright.session import open as open_session

    if (Path(network) / PIPELINE).is_file():
        given = {"--spec": spec, "--runtime": runtime, "--tile": tile}
        return _run_pipeline(terminal, network, inputs, [name for name, value in given.items() if value], draw)
    source: Any = Bundle.open(network) if is_bundle(network) else load_network(terminal, network, spec)
    task = registry.get("tasks", source.spec.task)
    read_by = source.spec if tile is None else tiling.whole(source.spec)
    rows: list[dict[str, Any]] = []
    with open_session(source, runtime=runtime, threads=terminal.options.threads) as session:
        for item in inputs:
            samples = open_samples(terminal, item, source, roles="judge", labels="none", notes=False)
            if tile is not None and not samples.are_photos:
                raise EdgewrightError("E103", f"`--tile` cuts photos, but `{item}` holds arrays")
            for index, name in enumerate(samples.ids):
                if tile is None:
                    outputs = session.run(samples.load(index).arrays)
                else:
                    outputs = tiling.run(session, samples.raw(name), overlap=tile)
                result = task.postprocess(outputs, read_by)
                if samples.are_photos and hasattr(task, "place_result"):
                    result = task.place_result(result, samples.photo_size(name), read_by)
                rows.append({"sample": name, "result": result.to_json()})
                if not terminal.options.as_json:
                    terminal.console.print(f"{name}: {result}", markup=False)
                if draw:
                    _draw(task, samples, name, result, read_by, Path(draw))
    if terminal.options.as_json:
        terminal.emit({"results": rows}, lambda console: None)
    return 0


def _run_pipeline(
    terminal: Terminal, folder: str, inputs: tuple[str, ...], useless: list[str], draw: str | None
) -> int:
    """Let a pipeline look at photos."""
    from edgewright.pipeline import PhotoSession, Pipeline

    pipeline = Pipeline.open(folder)
    if useless:
        raise EdgewrightError("E103", f"`{useless[0]}` is for one network, but `{folder}` is a pipeline")
    rows: list[dict[str, Any]] = []
    with pipeline.start(threads=terminal.options.threads) as session:
        if not isinstance(session, PhotoSession):
            raise EdgewrightError("E103", f"`{folder}` is a pipeline of tensors, and `run` shows it photos alone")
        first = next(iter(pipeline.parts.values())).bundle
        for item in inputs:
            samples = open_samples(terminal, item, first, roles="judge", labels="none", notes=False)
            if not samples.are_photos:
                raise EdgewrightError("E103", f"a pipeline looks at photos, but `{item}` holds arrays")
            for name in samples.ids:
                found = session.look(samples.raw(name))  # whole: boxes are cut from it
                rows.append({"sample": name, "result": found.to_json()})
                if not terminal.options.as_json:
                    terminal.console.print(f"{name}\n{found}", markup=False)
                if draw:
                    _save(found.draw(samples.photo(name)), name, Path(draw))
    if terminal.options.as_json:
        terminal.emit({"results": rows}, lambda console: None)
    return 0


def _draw(task: Any, samples: Any, name: str, result: Any, spec: Any, folder: Path) -> None:
    _save(task.draw(samples.photo(name), result, spec), name, folder)


def _save(picture: Any, name: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{Path(name).stem}.png")
    except OSError as problem:
        raise EdgewrightError(
            "E105", f"drawing in `{folder}` cannot be written: {problem.strerror or problem}"
        ) from None
