"""The figures of a node: what they are called, that they add up, and that their labels are few."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from edgenode.core.types import Load
from edgenode.shell.observe import Observer, Sample

SAMPLE = Sample(
    ready=True,
    draining=False,
    writable=False,
    behind=True,
    owned={"queued": 3, "running": 1},
    copies=9,
    members={"ready": 4, "dead": 1},
    load=Load(owned=4, running=1, done=7, taken=2),
    slots=2,
    unwritten_bytes=10,
    store_bytes=4096,
    damaged_rows=1,
    inbox=0,
    dropped={"inbox": 5, "link": 6},
    link_bytes={("bulk", "out"): 100, ("control", "in"): 20},
)


def figures(observer: Observer) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels, as a server that scrapes would read it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(observer.text().decode())
        for sample in family.samples
    }


def test_what_is_shown_is_how_the_node_is_at_that_moment() -> None:
    samples = [SAMPLE, SAMPLE._replace(ready=False, owned={})]
    observer = Observer(lambda: samples.pop(0), labels={"name": "a"})
    found = figures(observer)
    assert found["edgenode_info", (("name", "a"),)] == 1
    assert found["edgenode_ready", ()] == 1
    assert found["edgenode_store_writable", ()] == 0
    assert found["edgenode_jobs", (("state", "queued"),)] == 3
    assert found["edgenode_members", (("state", "dead"),)] == 1
    assert found["edgenode_jobs_ended_total", ()] == 7
    assert found["edgenode_messages_dropped_total", (("at", "link"),)] == 6
    assert found["edgenode_link_bytes_total", (("link", "bulk"), ("way", "out"))] == 100
    found = figures(observer)
    assert found["edgenode_ready", ()] == 0
    assert ("edgenode_jobs", (("state", "queued"),)) not in found


def test_what_happens_is_counted() -> None:
    observer = Observer(lambda: SAMPLE, labels={})
    observer.committed(0.003)
    observer.committed(0.2)
    observer.refused()
    observer.logged("member-dead")
    observer.logged("member-dead")
    found = figures(observer)
    assert found["edgenode_store_commit_seconds_count", ()] == 2
    assert found["edgenode_store_commit_seconds_bucket", (("le", "0.005"),)] == 1
    assert found["edgenode_store_refusals_total", ()] == 1
    assert found["edgenode_log_events_total", (("kind", "member-dead"),)] == 2


def test_no_figure_has_a_label_whose_values_grow_with_the_work() -> None:
    observer = Observer(lambda: SAMPLE, labels={"id": "x", "name": "a", "version": "0"})
    observer.logged("stalled")
    labels = {name for (metric, pairs) in figures(observer) for name, _ in pairs if metric != "edgenode_info"}
    assert labels <= {"state", "kind", "at", "link", "way", "le"}
