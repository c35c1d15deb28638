"""What starts say while they run (log, progress, partial results): what of it is kept, and what is shown.

A report is no part of its job's record: it changes nothing about the job, decides nothing, and competes with
no ballot. Each holder keeps what reaches it. Where a piece of text belongs says `Said.before`, so that every
disk can tell by itself what is superfluous, and a reader what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from edgenode.core.bounds import PARTIAL_BYTES_MAX
from edgenode.core.types import JobId, StartToken
from edgenode.core.wire import Said

TEXT_BYTES_MAX: Final = 64 * 1024
"""Of what one start said the end is kept: some thousand lines, and a few of these on each holder's disk."""
CHUNK_BYTES_MAX: Final = 16 * 1024
"""Of text in one report: a few of them never hold up an acknowledgement."""
CHUNKS_MAX: Final = 1_000
"""Reports of one start that are kept: a line at a time, those rows would cost more than what they say."""
STARTS_MAX: Final = 5
MESSAGE_CHARS_MAX: Final = 1_000


class Gist(NamedTuple):
    """Which report it is, and what decides whether it is kept. Starts are ordered as their tokens are."""

    token: StartToken
    number: int
    before: int
    after: int  # bytes of text said when it was made
    has_partial: bool


def gist_of(said: Said) -> Gist:
    return Gist(said.token, said.number, said.before, said.before + len(said.text), bool(said.partial))


def is_sound(said: Said) -> bool:
    """Whether a peer's report keeps to the limits."""
    return (
        len(said.text) <= CHUNK_BYTES_MAX
        and len(said.partial) <= PARTIAL_BYTES_MAX
        and len(said.message) <= MESSAGE_CHARS_MAX
        and not (said.text and said.partial)
        and said.fraction <= 1.0
    )


def superfluous(gists: Iterable[Gist]) -> set[Gist]:
    """Of the reports of one job that are on a disk those that it need not keep."""
    known = list(gists)
    latest = sorted({gist.token for gist in known})[-STARTS_MAX:]
    found = {gist for gist in known if gist.token not in latest}
    for token in latest:
        found |= _outdated([gist for gist in known if gist.token == token])
    return found


def _outdated(gists: Sequence[Gist]) -> set[Gist]:
    """Of one start's."""
    last = max(gist.number for gist in gists)
    from_byte = max(gist.after for gist in gists) - TEXT_BYTES_MAX
    partial = max((gist.number for gist in gists if gist.has_partial), default=0)
    outdated = set()
    for gist in gists:
        has_text = gist.after > max(gist.before, from_byte) and gist.number > last - CHUNKS_MAX
        if not has_text and gist.number not in (last, partial):
            outdated.add(gist)
    return outdated


def brief_of(gists: Iterable[Gist]) -> list[Gist]:
    """Those that say how far the latest start is: its latest report, and the one with its partial result."""
    known = list(gists)
    if not known:
        return []
    token = max(gist.token for gist in known)
    own = sorted(gist for gist in known if gist.token == token)
    return [gist for gist in own if gist.has_partial][-1:] + [
        gist for gist in own[-1:] if not gist.has_partial
    ]


class Told(NamedTuple):
    """What is known of what one start said."""

    token: StartToken
    last: Said
    pieces: tuple[tuple[int, bytes], ...]  # of its text without gaps, and where each begins
    said: int  # bytes of text in all
    partial: bytes  # JSON; b"" for none

    @property
    def missing(self) -> list[tuple[int, int]]:
        """From where to where its text is not here: dropped for its length, or lost on the way."""
        ends = [0, *(before + len(text) for before, text in self.pieces)]
        begins = [*(before for before, _ in self.pieces), self.said]
        return [(end, begin) for end, begin in zip(ends, begins, strict=True) if end < begin]


def told_of(items: Iterable[Said]) -> list[Told]:
    """What can be shown of these reports, per start, the earliest first."""
    merged = {(said.token, said.number): said for said in items}
    outdated = superfluous(map(gist_of, merged.values()))
    starts: dict[StartToken, list[Said]] = {}
    for key in sorted(merged):
        if gist_of(merged[key]) not in outdated:
            starts.setdefault(key[0], []).append(merged[key])
    return [_told(token, said) for token, said in starts.items()]


def _told(token: StartToken, reports: Sequence[Said]) -> Told:
    pieces: list[tuple[int, bytearray]] = []
    for said in reports:
        if not said.text:
            continue
        if pieces and said.before <= pieces[-1][0] + len(pieces[-1][1]):
            pieces[-1][1].extend(said.text)
        else:
            pieces.append((said.before, bytearray(said.text)))
    last = reports[-1]
    partial = next((said.partial for said in reversed(reports) if said.partial), b"")
    whole = tuple((before, bytes(text)) for before, text in pieces)
    return Told(token, last, whole, last.before + len(last.text), partial)


class ReportBook:
    """What was reported since the last write, for the disk. Nothing stays in memory after that."""

    def __init__(self) -> None:
        self._new: dict[JobId, list[Said]] = {}
        self._silenced: dict[JobId, None] = {}

    def add(self, said: Said) -> None:
        self._new.setdefault(said.job, []).append(said)

    def silence(self, job: JobId) -> None:
        """Nothing of this job's reports is kept any more."""
        self._new.pop(job, None)
        self._silenced[job] = None

    def forget(self, job: JobId) -> None:
        """Nothing of this job is kept any more: its reports on disk go with it."""
        self._new.pop(job, None)

    def clear(self) -> None:
        self._new.clear()
        self._silenced.clear()

    def __bool__(self) -> bool:
        """Whether there is something to write."""
        return bool(self._new) or bool(self._silenced)

    def pending(self, job: JobId) -> list[Said]:
        return self._new.get(job, [])

    def take(self) -> tuple[tuple[Said, ...], tuple[JobId, ...]]:
        """What the next `Persist` is to write, and whose reports it is to delete."""
        reports = tuple(said for items in self._new.values() for said in items)
        silenced = tuple(self._silenced)
        self.clear()
        return reports, silenced
