"""What the journal of a TensorRT keeps: warnings once with their counts, and not what loadtrt's own questions raise."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from command_line import loadtrt
from loadtrt.asked.config import RunConfig
from loadtrt.cuda.runtime import DeviceProperties
from loadtrt.engines.plan_engine import load_tensorrt
from loadtrt.engines.tensorrt_log import Journal, journal_of
from loadtrt.results.engine_info import LogMessage
from tensorrt_bench import bench_of, install

if TYPE_CHECKING:
    from pathlib import Path

OTHER_MODEL = "Using an engine plan file across different models of devices is not recommended."


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Journal:
    install(monkeypatch, "10.16.1.11")
    return journal_of(sys.modules["tensorrt"])


def test_messages_are_counted_once(journal: Journal) -> None:
    """Those that differ in numbers alone are one, with the first one's text; information is none."""
    before = journal.heard()
    for text in ("profile 1 of 0x7f2a is odd", "other", "profile 12 of 0x99 is odd"):
        journal.add("WARNING", text)
    journal.add("ERROR", "other")
    journal.add("INFO", "chatter")
    journal.add("VERBOSE", "more chatter")
    found = journal.messages(before)
    assert found == (
        LogMessage("warning", "profile 1 of 0x7f2a is odd", 2),
        LogMessage("warning", "other", 1),
        LogMessage("error", "other", 1),
    )
    before = journal.heard()
    assert journal.messages(before) == ()
    journal.add("WARNING", "other")
    assert journal.messages(before) == (LogMessage("warning", "other", 1),)


def test_what_is_expected_or_says_nothing_is_no_message(journal: Journal) -> None:
    """The answer to a question of loadtrt's, and what TensorRT says in every run; `reason` has them all the same."""
    mark = journal.mark()
    with journal.expecting_errors():
        journal.add("ERROR", "API not supported")
        journal.add("WARNING", "profile 0 is odd")
    journal.add("INTERNAL_ERROR", "Thread context has not been set! Using global log stream")
    journal.add(
        "WARNING", "Could not set default profile 0 for execution context. Profile index must be set explicitly."
    )
    assert journal.messages({}) == (LogMessage("warning", "profile 0 is odd", 1),)
    assert journal.reason(mark) == "API not supported"


def test_there_is_an_end_to_different_messages(journal: Journal) -> None:
    """A library that writes something else each time does not fill memory."""
    letters = [chr(number) for number in range(0x4E00, 0x4E00 + 5000)]
    for letter in letters:
        journal.add("WARNING", letter)
    assert len(journal.messages({})) == 200


def test_an_engine_that_is_opened_again_has_its_messages(journal: Journal) -> None:
    """However often, as in the cells of a measurement of interference."""
    for _ in range(300):
        before, owner = journal.heard(), object()
        with journal.calls_of(owner):
            journal.add("WARNING", OTHER_MODEL)
        assert journal.messages(before, owner) == (LogMessage("warning", OTHER_MODEL, 1),)
        assert journal.messages(before, object()) == ()


@pytest.mark.parametrize("flavour", ["8.6", "10", "dispatch", "rtx"])
def test_a_plan_has_what_was_logged_for_it(flavour: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From its loading on, contexts included; what is logged for another plan is not its own, whichever was loaded
    first; what loadtrt asks of an old runtime inside the plan is not told."""
    bench = bench_of(flavour, monkeypatch, tmp_path, warns=[OTHER_MODEL], inner_86=True)
    first = bench.load(batch=1)
    assert first.open.logged() == (LogMessage("warning", OTHER_MODEL, 1),)
    first.close()
    third, second = bench.load(batch=1), bench.load(batch=1)
    bench.world.warns_at_context = "a context of this plan is odd"
    second.context(7).close()
    assert second.open.logged() == (
        LogMessage("warning", OTHER_MODEL, 1),
        LogMessage("warning", "a context of this plan is odd", 1),
    )
    assert third.open.logged() == (LogMessage("warning", OTHER_MODEL, 1),)
    journal_of(second.flavour.module).add("WARNING", "while both run")
    assert LogMessage("warning", "while both run", 1) in set(second.open.logged()) & set(third.open.logged())
    second.close()
    third.close()


def test_an_engine_tells_what_was_logged_until_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So a run's result has what TensorRT says while it runs."""
    bench = bench_of("10", monkeypatch, tmp_path, warns=[OTHER_MODEL])
    gpu = DeviceProperties(0, "Fake H100", (9, 0), 132, 80 << 30, "0")
    monkeypatch.setattr("loadtrt.engines.plan_engine.device_properties", lambda _: gpu)
    engine = load_tensorrt(RunConfig.of(engine=bench.path, batch=1).model)
    assert [message.text for message in engine.info.log] == [OTHER_MODEL]
    engine.info = replace(engine.info, notes=("more",))
    journal_of(sys.modules["tensorrt"]).add("WARNING", "while it ran")
    assert [message.text for message in engine.info.log] == [OTHER_MODEL, "while it ran"]
    assert engine.info.notes == ("more",)
    engine.close()
    assert len(engine.info.log) == 2


def test_inspect_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As text with cause and remedy, as JSON whole."""
    bench = bench_of("10", monkeypatch, tmp_path, warns=[OTHER_MODEL, "odd " * 200])
    text = loadtrt("inspect", bench.path).stdout
    assert "the plan was built on another model of GPU than this one (Fake H100)" in text
    assert f"→ build it again on this GPU: loadtrt build MODEL -o {bench.path}." in text
    loaded: dict[str, Any] = json.loads(loadtrt("inspect", bench.path, "--json").stdout)["loaded"]
    assert loaded["log"][1] == {"severity": "warning", "text": ("odd " * 200).strip(), "times": 1}
