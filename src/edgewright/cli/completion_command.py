"""`edgewright completion`: the script that completes commands in a shell."""

from __future__ import annotations

import click

from edgewright.cli.common import Terminal, edgewright_command


@edgewright_command(name="completion", short_help="Shell completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(terminal: Terminal, shell: str) -> int:
    r"""Print the completion script of SHELL.

    \b
    bash:  edgewright completion bash > ~/.local/share/bash-completion/completions/edgewright
    zsh:   edgewright completion zsh > "${fpath[1]}/_edgewright"
    fish:  edgewright completion fish > ~/.config/fish/completions/edgewright.fish
    """
    from click.shell_completion import get_completion_class

    from edgewright.cli import group

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(group, {}, "edgewright", "_EDGEWRIGHT_COMPLETE").source()
    terminal.emit({"shell": shell, "script": script}, lambda console: click.echo(script))
    return 0
