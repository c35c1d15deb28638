"""Dask distributed: a scheduler in the client's process, and two worker processes of one thread."""

from __future__ import annotations

from collections.abc import Sequence

from peer import COLLECT_S, WORKERS, Peer, main


def echo(message: str) -> str:
    return message


class Dask(Peer):
    name = "Dask distributed"
    accepted = "nothing: it is in the memory of client and scheduler"
    is_lazy = True

    def start(self) -> str:
        import distributed

        cluster = distributed.LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            dashboard_address=None,
            scheduler_port=self.ports[0],
            local_directory=str(self.folder),
        )
        self._client = distributed.Client(cluster)
        return f"distributed {distributed.__version__}"

    def submit(self, messages: Sequence[str]) -> None:
        self._sent = self._client.map(echo, messages, pure=False)

    def collect(self) -> list[str]:
        return list(self._client.gather(self._sent))

    def one(self, message: str) -> str:
        return str(self._client.submit(echo, message, pure=False).result(timeout=COLLECT_S))


if __name__ == "__main__":
    main(Dask)
