"""Gathers what starts say, and hands it to the core in reports: about two a second, and none if there is
nothing to say.

A report is put off for `PERIOD_S` after the first word, so that a short job makes one at most. What is not
reported is lost with the node; what was said before an end is reported before that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from edgenode.core.reports import CHUNK_BYTES_MAX, MESSAGE_CHARS_MAX, TEXT_BYTES_MAX
from edgenode.core.signals import Event, Reported, RunEnded
from edgenode.core.types import Instant, JobId, Seconds, StartToken

PERIOD_S: Final[Seconds] = 0.5
BYTES_PER_S: Final = 32 * 1024
"""What one start may have written on the disks of all holders, in the long run: a flood is reported less
often, and only the end of it."""


class Timer(Protocol):
    def cancel(self) -> None: ...


@dataclass(slots=True)
class Voice:
    """What one start has said."""

    number: int = 0  # of its latest report
    fraction: float = -1.0
    message: str = ""
    before: int = 0  # bytes of text that were reported, or dropped
    text: bytearray = field(default_factory=bytearray)  # not reported yet
    partial: bytes = b""  # likewise
    timer: Timer | None = None  # of the next report, if there is something to report
    not_before: Instant = 0.0


class Reporter:
    """Tell it all that workers say. It calls `post` with `Reported` events, and with each `RunEnded` after
    those of its start.

    Args:
        later: calls back after so many seconds, as `loop.call_later`.
        clock: the clock of that, as `loop.time`.
    """

    def __init__(
        self,
        post: Callable[[Event], None],
        later: Callable[[Seconds, Callable[[], None]], Timer],
        clock: Callable[[], Instant],
    ) -> None:
        self._post = post
        self._later = later
        self._clock = clock
        self._voices: dict[tuple[JobId, StartToken], Voice] = {}

    def progress(self, job: JobId, token: StartToken, fraction: float, message: str) -> None:
        voice = self._voice(job, token)
        voice.fraction, voice.message = fraction, message[:MESSAGE_CHARS_MAX]

    def output(self, job: JobId, token: StartToken, text: str) -> None:
        """More of its log. Of what comes too fast to be reported the end is kept."""
        if not text:
            return
        voice = self._voice(job, token)
        voice.text += text.encode(errors="replace")
        surplus = len(voice.text) - TEXT_BYTES_MAX
        if surplus > 0:
            del voice.text[:surplus]
            voice.before += surplus

    def partial(self, job: JobId, token: StartToken, value: bytes) -> None:
        """A partial result, as JSON: it takes the place of the one before."""
        self._voice(job, token).partial = value

    def ended(self, ended: RunEnded) -> None:
        voice = self._voices.pop((ended.job, ended.token), None)
        if voice is not None and voice.timer is not None:
            voice.timer.cancel()
            self._report(ended.job, ended.token, voice)
        self._post(ended)

    def _voice(self, job: JobId, token: StartToken) -> Voice:
        """Of a start that has something to say: there will be a report."""
        voice = self._voices.get((job, token))
        if voice is None:
            voice = self._voices[job, token] = Voice()
        if voice.timer is None:
            pause_s = max(PERIOD_S, voice.not_before - self._clock())
            voice.timer = self._later(pause_s, lambda: self._report(job, token, voice))
        return voice

    def _report(self, job: JobId, token: StartToken, voice: Voice) -> None:
        voice.timer = None
        size = len(voice.text) + len(voice.partial)
        voice.not_before = self._clock() + size / BYTES_PER_S
        text, voice.text = bytes(voice.text), bytearray()
        texts = [text[at : at + CHUNK_BYTES_MAX] for at in range(0, len(text), CHUNK_BYTES_MAX)]
        partial, voice.partial = voice.partial, b""
        pieces = [(each, b"") for each in texts] + [(b"", partial)] * bool(partial)
        for piece, value in pieces or [(b"", b"")]:
            voice.number += 1
            self._post(
                Reported(job, token, voice.number, voice.fraction, voice.message, voice.before, piece, value)
            )
            voice.before += len(piece)
