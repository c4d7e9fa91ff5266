"""`edgewright serve add-processor`: hooks into a bundle."""

from __future__ import annotations

import click

from edgewright.cli.common import Terminal, edgewright_command, quoted


@edgewright_command(name="add-processor", short_help="Hooks into a bundle")
@click.argument("bundle")
@click.argument("processor", metavar="PROCESSOR.PY")
@click.argument("files", nargs=-1, metavar="[FILE]...")
def command(terminal: Terminal, bundle: str, processor: str, files: tuple[str, ...]) -> int:
    """Put PROCESSOR.PY into BUNDLE, named and hashed in its manifest, with the FILEs that it reads.

    It may define preprocess(x, **kw), run_model(model, x, **kw) and postprocess(x, **kw). It is checked, not run; servers
    run it only with --allow-hooks.
    """
    from edgewright.serve.hooks.adding import add_processor

    if terminal.options.dry_run:
        terminal.emit({"would_change": bundle}, lambda console: console.print(f"would change {bundle}", markup=False))
        return 0
    changed = add_processor(bundle, processor, files)
    hooks = {name: sha for name, (sha, _) in changed.hooks.items()}
    terminal.emit(
        {"bundle": bundle, "hooks": hooks},
        lambda console: console.print(
            "\n".join(f"{name}  sha256 {sha[:16]}" for name, sha in hooks.items()), markup=False
        ),
    )
    terminal.next(f"edgewright serve {quoted(bundle)} --allow-hooks")
    return 0
