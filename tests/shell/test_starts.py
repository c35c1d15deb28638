"""What becomes of whatever a task raises: words that a record can carry."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from edgenode.core.types import State
from edgenode.shell.starts import Start, ended_by, make_context
from edgenode.task import Cancel, Fail, Retry

NO_TEXT = "caf\udce9 \ud800"
SPELLED = "caf\\udce9 \\ud800"


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError, Fail, Retry, Cancel])
def test_words_that_are_no_text_are_spelled_out(kind: type[Exception]) -> None:
    ended = ended_by(kind(NO_TEXT), None)
    assert SPELLED in ended.error
    ended.error.encode()


@pytest.mark.parametrize("kind", [ValueError, Fail, Retry, Cancel])
def test_long_words_are_cut(kind: type[Exception]) -> None:
    assert 1_000 < len(ended_by(kind("x" * 20_000_000), None).error) < 2_000


def test_an_exception_that_cannot_say_what_it_is_ends_its_start_as_any_other() -> None:
    ended = ended_by(Mute(), None)
    assert ended.state is State.FAILED
    assert ended.error.startswith("Mute: (RuntimeError when asked for its text)")


def told(folder: Path, *progress: Any) -> list[tuple[float, str]]:
    said: list[tuple[float, str]] = []
    start = Start("job", (1, "owner", 1), "task", b"{}", 1)
    with make_context(
        start,
        folder,
        is_cancelled=lambda: False,
        on_progress=lambda fraction, message: said.append((fraction, message)),
        on_partial=lambda value: None,
        on_log=lambda line: None,
    ) as context:
        context.progress(*progress)
    return said


@pytest.mark.parametrize(
    ("fraction", "shown"), [(math.nan, 0.0), (math.inf, 1.0), (-math.inf, 0.0), (7, 1.0), (0.25, 0.25)]
)
def test_progress_is_a_number_from_0_to_1(tmp_path: Path, fraction: float, shown: float) -> None:
    assert told(tmp_path, fraction) == [(shown, "")]


def test_the_message_of_a_progress_is_text(tmp_path: Path) -> None:
    assert told(tmp_path, 0.5, NO_TEXT) == [(0.5, SPELLED)]
