"""`loadtrt run --repeat`: a run started several times, each time in a process of its own, and what differs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import loadtrt
from loadtrt.asked.fields import option_name
from loadtrt.cli.delivery import show_beside
from loadtrt.cli.github import require_summary, tell_result
from loadtrt.cli.outputs import tell_failure
from loadtrt.cli.voice import Voice
from loadtrt.errors import EXIT_INTERRUPTED, EngineError, UsageError
from loadtrt.files import locked
from loadtrt.printing import command_line, say
from loadtrt.report.comparison_sections import side_of
from loadtrt.report.plain import terminal_text
from loadtrt.results.failure import Failure
from loadtrt.results.repeat_result import RepeatResult
from loadtrt.results.run_result import RunResult
from loadtrt.signals import PARENT, SIGNALS, pass_on, signal_name
from loadtrt.sizing.keeping import Keeper
from loadtrt.stats.starts import spreads

if TYPE_CHECKING:
    from typing import Literal

    from loadtrt.asked.config import RunConfig

_LOOK_S = 0.05
_MOST_SEED = (1 << 63) - 1
# Of one run alone, or a pass after it.
_SINGLE = (
    "profile",
    "junit",
    "export_times",
    "export_profile",
    "export_layer_info",
    "export_output",
    "trt_log",
    "worker",
    "devices",
    "processes",
    "model_processes",
)


def require_repeatable(config: RunConfig, times: int) -> None:
    """Raise UsageError for options that go with a single start only."""
    for name in config.given(*_SINGLE):
        raise UsageError(f"{option_name(name)} is for a single start: leave it or --repeat out")
    if config.model.seed > _MOST_SEED - times:
        raise UsageError(f"--seed {config.model.seed} leaves no larger seeds for {times} starts: take a smaller one")


def repeated(config: RunConfig, times: int) -> int:
    """Start the run of `config` so many times, write and show the result, and return the exit code.

    A start is a new process: it loads the engine anew, makes new contexts, warms up, and has a seed of its own. What
    completed is kept in the file of --json after each start. A signal is passed on to the start that goes on, and no
    further one is made.
    """
    require_summary(config.github)
    with locked("--json", config.json_file):
        code, failure = _repeated(config, times)
    if failure is not None:
        tell_failure(failure, code)
    return code


def _repeated(config: RunConfig, times: int) -> tuple[int, str | None]:
    """The exit code, and the reason why there is no result: None if there is one, and after a signal."""
    from loadtrt.cli.running import exit_code

    started = datetime.now(UTC).isoformat(timespec="seconds")
    voice, code = Voice(quiet=config.quiet), 0
    runs: list[RunResult] = []
    keeper = Keeper(config.json_file, voice.say)
    SIGNALS.hold()

    def result(outcome: Literal["completed", "interrupted", "failed"], failure: str | None = None) -> RepeatResult:
        whole = [side_of(f"start {number}", run) for number, run in enumerate(runs, 1) if run.outcome == "completed"]
        return RepeatResult(
            loadtrt=loadtrt.__version__, started=started, command=command_line(), config=config, asked=times,
            outcome=outcome, failure=failure, runs=tuple(runs), spreads=spreads([side.measured for side in whole]),
        )  # fmt: skip

    outcome: Literal["completed", "interrupted", "failed"] = "completed"
    failure = None
    for number in range(times):
        if SIGNALS.requested():
            outcome = "interrupted"
            break
        seed = config.model.seed + number
        voice.say(f"start {number + 1} of {times}, seed {seed}")
        code, run = _start(config.with_model(seed=seed))
        if isinstance(run, RunResult):
            runs.append(run)
            why = run.failure
        else:
            why = f"start {number + 1} of {times} measured nothing" + (f": {run}" if run else "")
        if not isinstance(run, RunResult) or run.outcome != "completed":
            stopped = code == EXIT_INTERRUPTED or SIGNALS.requested()
            outcome = "interrupted" if stopped else "failed"
            failure = None if stopped else why
            break
        keeper(result("interrupted" if number + 1 < times else "completed"))
    if not runs:
        return code or EXIT_INTERRUPTED, failure
    made = result(outcome, failure)
    keeper.finish(made)
    if not config.quiet:
        show_beside(config.json_file, terminal_text(made))
    if config.github:
        tell_result(made, code if outcome == "failed" else exit_code(made), config.json_file)
    if keeper.failure is not None:
        raise UsageError(keeper.failure)
    return code if outcome == "failed" else exit_code(made), None


def _start(config: RunConfig) -> tuple[int, RunResult | str]:
    """Make the run in a process of its own, which says on stderr what goes wrong, and draws there. Returns its exit
    code, and its result, or why there is none, as far as that is known."""
    asked, made = (os.memfd_create(name) for name in ("loadtrt-config", "loadtrt-run"))
    try:
        with open(asked, "wb", closefd=False) as file:
            file.write(json.dumps({**config.options(), "json": f"/dev/fd/{made}", "github": False}).encode())
        command = [sys.executable, "-P", "-m", "loadtrt", "run", "--config", f"/dev/fd/{asked}"]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(asked, made),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), PARENT: str(os.getpid())},
            start_new_session=True,  # a Ctrl-C comes once, from here
        )
        SIGNALS.last_acts.append(process.kill)
        try:
            code = _awaited(process)
        finally:
            process.kill()
            SIGNALS.last_acts.remove(process.kill)
        with open(made, "rb", closefd=False) as file:
            file.seek(0)
            text = file.read()
    finally:
        os.close(asked)
        os.close(made)
    if code < 0:
        if SIGNALS.requested():
            return EXIT_INTERRUPTED, ""
        ended = f"the process of a start was ended by {signal_name(-code)}"
        say(ended)
        return EngineError.exit_code, ended
    if not text:
        return code, ""
    with suppress(ValueError):
        return code, Failure.model_validate_json(text).failure
    run = RunResult.model_validate_json(text)
    return code, run.model_copy(update={"config": config, "command": command_line()})


def _awaited(process: subprocess.Popen[Any]) -> int:
    """The exit code of a process, which gets each signal that comes here."""
    passed_on = 0
    while process.poll() is None:
        if SIGNALS.requested() + SIGNALS.hurried() > passed_on:
            passed_on += 1
            pass_on(process)
        time.sleep(_LOOK_S)
    return process.returncode
