"""`loadtrt`: the group of commands. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

from loadtrt import __version__
from loadtrt.cli.streams import discard
from loadtrt.cli.words import as_declared, explained, require_once
from loadtrt.errors import EngineError, LoadtrtError, UsageError, nearest, shortage_of
from loadtrt.printing import say
from loadtrt.signals import SIGNALS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# name: (module with `command`, help text). The texts are here so that --help imports none of the modules.
COMMANDS = {
    "run": ("loadtrt.cli.run", "Load an engine and measure its throughput and latency."),
    "plan-capacity": ("loadtrt.cli.plan_capacity", "Compute how many GPUs a demand needs, from measured runs."),
    "sweep": (
        "loadtrt.cli.sweep",
        "Run over contexts, buffers, batches, rates: the curve, its knee, its Pareto front.",
    ),
    "interference": (
        "loadtrt.cli.interference",
        "Measure how models on one GPU slow each other down, and what protects them.",
    ),
    "capacity": ("loadtrt.cli.capacity", "Find the highest arrival rate that meets objectives, and confirm it."),
    "build": ("loadtrt.cli.build", "Build a plan from an ONNX, zoo or Caffe model, for this GPU or another."),
    "trtexec": ("loadtrt.cli.trtexec_line", "Translate a command line of trtexec, and run it."),
    "profile": ("loadtrt.cli.profile", "Time each layer of an engine, or of two engines side by side."),
    "compare": ("loadtrt.cli.compare", "Compare two results, of loadtrt or of trtexec, and gate on regressions."),
    "merge": ("loadtrt.cli.merge", "Merge the results of a fleet's workers into one."),
    "report": ("loadtrt.cli.report", "Write results as an HTML page, Markdown, CSV or a trace."),
    "watch": ("loadtrt.cli.watch", "Show the live view of a run in another terminal or on another machine."),
    "export": ("loadtrt.cli.export", "Write a finished run in another tool's format."),
    "inspect": ("loadtrt.cli.inspect", "Show what is in a plan or model, with or without a GPU."),
    "doctor": ("loadtrt.cli.doctor", "Check GPU, driver, TensorRT and host, and show how to fix what is wrong."),
    "schema": ("loadtrt.cli.schema", "Print the JSON schema of a configuration or of a result."),
    "zoo": ("loadtrt.cli.zoo", "Generate and write a model, such as googlenet."),
    "example": ("loadtrt.cli.example", "Write an example configuration."),
    "dashboards": ("loadtrt.cli.dashboards", "Write dashboards and rules for Grafana and Prometheus."),
    "completion": ("loadtrt.cli.completion", "Print the completion script of a shell."),
}


class _Lazy(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[name][0]).command
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = nearest(args[0], COMMANDS, f"the commands are {', '.join(COMMANDS)}")
            raise click.UsageError(f"'{args[0]}' is not a command: {hint}")
        name, command, words = super().resolve_command(context, args)
        if name is not None and command is not None and not context.resilient_parsing:  # as for completion
            words = as_declared(command, words)
            require_once(name, command, words, context)
        return name, command, words

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands with their texts. Click would import each module for that."""
        from click.shell_completion import CompletionItem

        named = [
            CompletionItem(name, help=help_) for name, (_, help_) in COMMANDS.items() if name.startswith(incomplete)
        ]
        return named + click.Command.shell_complete(self, context, incomplete)

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_) for name, (_, help_) in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="loadtrt")
def cli() -> None:
    """Async, multi-context load tester for TensorRT."""


def main() -> None:
    """Entry point: every failure is one sentence on stderr and an exit code (0 success, 2 usage and files, 3 engine and
    CUDA, 97 measured but INVALID, 98 an objective undecided, 99 an objective missed, 130 interrupted)."""
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        code = 2
    except click.NoSuchOption as error:
        code = _say(explained(error), error.exit_code)
    except click.ClickException as error:
        code = _say(f"{error.format_message()}", error.exit_code)
    except LoadtrtError as error:
        code = _say(str(error), error.exit_code)
        try:
            sys.stdout.flush()
        except UsageError:  # stdout is full; Python would say so again when it closes it
            discard(sys.stdout.fileno())
    except click.Abort:  # click's word for Ctrl-C
        raise KeyboardInterrupt from None
    except Exception as error:
        # With SIGHUP the terminal goes, and what is still written to it fails.
        if _was_interrupted(error) or (isinstance(error, OSError) and SIGNALS.requested()):
            raise KeyboardInterrupt from None
        code = _say(*_explained(error))
    sys.exit(code)


def _explained(error: Exception) -> tuple[str, int]:
    """A sentence and an exit code for an error that is not one of loadtrt's own."""
    if (shortage := shortage_of(error)) is not None:
        return shortage, EngineError.exit_code
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}", UsageError.exit_code
    if os.environ.get("LOADTRT_TRACEBACK"):
        raise error
    return f"a fault in loadtrt itself: {type(error).__name__}: {error} (LOADTRT_TRACEBACK=1 shows the traceback)", 1


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is the cause of an error: extension modules turn it into "initialization failed"."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _say(sentence: str, code: int) -> int:
    say(sentence)
    if (outputs := sys.modules.get("loadtrt.cli.outputs")) is not None:
        outputs.tell_failure(sentence, code)
    return code
