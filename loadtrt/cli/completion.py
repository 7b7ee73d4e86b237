"""`loadtrt completion`: what a shell needs to complete commands, options and their words."""

from __future__ import annotations

import sys

import click

from loadtrt.cli.delivery import show

_SHELLS = ("bash", "zsh", "fish")


@click.command("completion", short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script with which SHELL completes commands, options and their values.

    \b
    eval "$(loadtrt completion bash)"                    # in ~/.bashrc, bash 4.4 or newer
    eval "$(loadtrt completion zsh)"                     # in ~/.zshrc, after compinit
    loadtrt completion fish | source                     # in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  # click brings these three
    script = kind(context.find_root().command, {}, "loadtrt", "_LOADTRT_COMPLETE")
    show(f"{(script.source_template % script.source_vars()).strip()}\n", sys.stdout)  # source() starts a shell
