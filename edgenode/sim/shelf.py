"""What one disk has of reports, as the store's table keeps them."""

from __future__ import annotations

from collections.abc import Iterable

from edgenode.core.reports import brief_of, gist_of, superfluous
from edgenode.core.types import JobId, StartToken
from edgenode.core.wire import Said


class Shelf:
    """Durable at once: whoever has it writes when its disk has synced."""

    def __init__(self) -> None:
        self._kept: dict[JobId, dict[tuple[StartToken, int], Said]] = {}

    def copy(self) -> Shelf:
        made = Shelf()
        made._kept = {job: dict(kept) for job, kept in self._kept.items()}
        return made

    def write(self, reports: Iterable[Said], gone: Iterable[JobId]) -> None:
        """Take these, after all of the jobs in `gone` are deleted."""
        for job in gone:
            self._kept.pop(job, None)
        changed: dict[JobId, None] = {}
        for said in reports:
            self._kept.setdefault(said.job, {}).setdefault((said.token, said.number), said)
            changed[said.job] = None
        for job in changed:
            kept = self._kept[job]
            for gist in superfluous(map(gist_of, kept.values())):
                del kept[gist.token, gist.number]

    def read(self, job: JobId, *, brief: bool) -> list[Said]:
        kept = self._kept.get(job, {})
        if brief:
            found = brief_of(map(gist_of, kept.values()))
            return [kept[gist.token, gist.number]._replace(text=b"") for gist in found]
        return [kept[key] for key in sorted(kept)]

    def jobs(self) -> Iterable[JobId]:
        return self._kept
