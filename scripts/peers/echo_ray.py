"""Ray on two processors, without its dashboard."""

from __future__ import annotations

import os
from collections.abc import Sequence

from peer import COLLECT_S, WORKERS, Peer, main


class Ray(Peer):
    name = "Ray"
    accepted = "nothing: it is in the memory of the client and its node"

    def start(self) -> str:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray

        ray.init(
            num_cpus=WORKERS,
            include_dashboard=False,
            logging_level="error",
            log_to_driver=False,
            _temp_dir=str(self.folder),
        )

        def echo(message: str) -> str:
            return message

        self._get, self._echo = ray.get, ray.remote(echo)
        self.one("ready")
        return f"ray {ray.__version__}"

    def submit(self, messages: Sequence[str]) -> None:
        self._sent = [self._echo.remote(message) for message in messages]

    def collect(self) -> list[str]:
        return list(self._get(self._sent, timeout=COLLECT_S))

    def one(self, message: str) -> str:
        return str(self._get(self._echo.remote(message), timeout=COLLECT_S))


if __name__ == "__main__":
    main(Ray)
