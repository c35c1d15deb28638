"""What simulated starts say now and then, and the law about it: nobody has of a start what it did not say.

Only some seeds talk, and from a source of chance of their own: the others go as they would without.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgenode.core.job_ids import job_text
from edgenode.core.jobs import is_marker
from edgenode.core.reports import CHUNK_BYTES_MAX, STARTS_MAX, TEXT_BYTES_MAX, gist_of, superfluous, told_of
from edgenode.core.signals import Reported, ReportsAsked, Run
from edgenode.core.types import JobId, NodeId, Seconds, StartToken
from edgenode.core.wire import Said
from edgenode.sim.machines import Life
from edgenode.sim.story import short, token_text
from edgenode.sim.violation import Violation

if TYPE_CHECKING:
    from edgenode.sim.world import World

TALKATIVE: Final = 0.25
"""The share of seeds whose starts say something."""
WORDS_MAX: Final = 4
SIZES: Final = (0, 0, 20, 20, 20, 20, 20, 2_000, 2_000, CHUNK_BYTES_MAX)
READ_CHANCE: Final = 0.1
READ_S: Final[Seconds] = 3.0
FLOOD: Final = 0.01
"""The share of words that are many more than are kept."""
FLOOD_CHUNKS: Final = 6

Word = tuple[JobId, StartToken, int, NodeId, float, int, bytes | None]
"""What a report says; also without its text, as brief answers have it."""


@dataclass(slots=True)
class Voice:
    """How much a start has said."""

    number: int = 0
    said: int = 0


class Talk:
    """Hears all that starts say, and all that disks and readers have of it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = world.random("talk")
        self.is_on = False
        self._voices: dict[tuple[NodeId, JobId, StartToken], Voice] = {}
        self._words: set[Word] = set()

    # ------------------------------------------------------------------------------------- what is said

    def begins(self, life: Life, run: Run, lasts_s: Seconds) -> None:
        """A start that may say something while it runs."""
        if not self.is_on:
            return
        for _ in range(self._dice.randrange(0, WORDS_MAX + 1)):
            self._world.later(
                life, self._dice.uniform(0.0, lasts_s), lambda: self._chat(life, run.job, run.token)
            )

    def ends(self, life: Life, job: JobId, token: StartToken) -> None:
        """Its last words are told before its end."""
        if self.is_on and self._dice.random() < 0.3:
            self._chat(life, job, token)

    def _chat(self, life: Life, job: JobId, token: StartToken) -> None:
        count = FLOOD_CHUNKS if self._dice.random() < FLOOD else 1
        size = CHUNK_BYTES_MAX if count > 1 else self._dice.choice(SIZES)
        for _ in range(count):
            self.say(life, job, token, size=size, fraction=self._dice.random())
        if self._dice.random() < READ_CHANCE:
            self._read(job)

    def _read(self, job: JobId) -> None:
        """Somebody asks somewhere what was said."""
        world = self._world
        lives = [life for life in world.lives() if not life.paused]
        if lives:
            reader, brief = self._dice.choice(lives), self._dice.random() < 0.5
            world.ask(
                reader,
                lambda request: ReportsAsked(request, job, (), brief, READ_S),
                lambda answer: None,  # what it says `heard` has seen
            )

    def say(
        self, life: Life, job: JobId, token: StartToken, *, size: int, fraction: float, text: bytes = b""
    ) -> None:
        """Let a start say `text`, or something of that size; nothing if it is over."""
        if not life.alive or (job, token) not in life.running:
            return
        voice = self._voices.setdefault((life.place, job, token), Voice())
        voice.number += 1
        text = text or (b"%d." % voice.number * size)[:size]
        word = (job, token, voice.number, life.id, fraction, voice.said)
        self._words |= {(*word, text), (*word, None)}
        report = Reported(job, token, voice.number, fraction, "", voice.said, text)
        voice.said += len(text)
        self._world.handle(life, report)

    # ------------------------------------------------------------------------------------ what is known

    def heard(self, where: str, items: Iterable[Said]) -> None:
        """I2: a disk, or a reader, has this of what was said."""
        for said in items:
            if not self._is_said(said):
                raise Violation(
                    f"I2: {where} has what {token_text(said.token)} of {job_text(said.job)} never said"
                )

    def _is_said(self, said: Said) -> bool:
        """Of a brief answer the texts are left out."""
        word = _word(said)
        return word in self._words or (not said.text and (*word[:-1], None) in self._words)

    def check(self, *, is_calm: bool) -> None:
        """I15: what disks keep is bounded, and of jobs that they have. Where nothing went wrong the living
        holders have all that is kept of what was said."""
        for place, disk in self._world.disks.items():
            for job in disk.shelf.jobs():
                kept = disk.reports(job, brief=False)
                self.heard(short(place), kept)
                self._check_bounds(place, job, kept)
                record = disk.record(job)
                if job not in disk.damaged and (record is None or is_marker(record)):
                    raise Violation(f"I15: {short(place)} keeps what {job_text(job)} said, and not the job")
        if is_calm:
            self._check_completeness()

    def _check_bounds(self, place: NodeId, job: JobId, kept: list[Said]) -> None:
        starts = told_of(kept)
        longest = max(sum(len(text) for _, text in told.pieces) for told in starts)
        if superfluous(map(gist_of, kept)) or len(starts) > STARTS_MAX:
            raise Violation(f"I15: {short(place)} keeps more of what {job_text(job)} said than it need")
        if longest >= TEXT_BYTES_MAX + CHUNK_BYTES_MAX:
            raise Violation(f"I15: {short(place)} keeps {longest} bytes that a start of {job_text(job)} said")

    def _check_completeness(self) -> None:
        spoken: dict[JobId, set[Word]] = {}
        for word in self._words:
            if word[-1] is not None:
                spoken.setdefault(word[0], set()).add(word)
        for place, disk in self._world.disks.items():
            for job, words in sorted(spoken.items()):
                record = disk.record(job)
                if record is None or is_marker(record) or place not in record.holders:
                    continue
                kept = disk.reports(job, brief=False)
                wanted = list(map(_said, words))
                outdated = superfluous(map(gist_of, wanted))
                missing = {gist_of(said) for said in wanted} - outdated - {gist_of(said) for said in kept}
                if missing:
                    raise Violation(f"{short(place)} lacks {len(missing)} reports of {job_text(job)}")


def _word(said: Said) -> Word:
    return said.job, said.token, said.number, said.runner, said.fraction, said.before, said.text


def _said(word: Word) -> Said:
    job, token, number, runner, fraction, before, text = word
    return Said(job, token, number, runner, 0, 0.0, fraction, "", before, text or b"", b"")
