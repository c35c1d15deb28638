"""What of the reports of starts is kept, what is shown, and how they come to the holders."""

from __future__ import annotations

from typing import Any

from job_mesh import RUN_S, A, B, Begun, C, D, Mesh, job_id, succeeded

from edgenode.core.bounds import PARTIAL_BYTES_MAX
from edgenode.core.jobs import shrunk
from edgenode.core.reporting import TRIES_MAX
from edgenode.core.reports import (
    CHUNK_BYTES_MAX,
    CHUNKS_MAX,
    STARTS_MAX,
    TEXT_BYTES_MAX,
    told_of,
)
from edgenode.core.settings import JobSettings, Settings
from edgenode.core.signals import ReportsDone
from edgenode.core.types import JobId, NodeId, StartToken
from edgenode.core.wire import AskReports, Noted, Report, Reports, Said
from edgenode.sim.shelf import Shelf

JOB = job_id(1)
TOKEN = StartToken(1, A, 1)


def said(number: int, text: bytes = b"", before: int = 0, **more: Any) -> Said:
    plain = Said(JOB, TOKEN, number, A, 1, 0.0, -1.0, "", before, text, b"")
    return plain._replace(**more)


def stream(shelf: Shelf, chunks: int, size: int, token: StartToken = TOKEN) -> None:
    for number in range(1, chunks + 1):
        text = bytes([97 + number % 26]) * size
        shelf.write([said(number, text, (number - 1) * size, token=token)], ())


# ---------------------------------------------------------------------------------- what is kept and shown


def test_of_a_long_log_the_end_is_kept_and_what_is_dropped_is_counted() -> None:
    shelf = Shelf()
    stream(shelf, 10, CHUNK_BYTES_MAX)
    (told,) = told_of(shelf.read(JOB, brief=False))
    ((before, text),) = told.pieces
    assert TEXT_BYTES_MAX <= len(text) < TEXT_BYTES_MAX + CHUNK_BYTES_MAX
    assert before + len(text) == told.said == 10 * CHUNK_BYTES_MAX
    assert told.missing == [(0, before)]
    assert text.endswith(b"k" * CHUNK_BYTES_MAX)


def test_a_log_of_many_short_lines_is_bounded_in_rows() -> None:
    shelf = Shelf()
    stream(shelf, CHUNKS_MAX + 10, 1)
    assert len(shelf.read(JOB, brief=False)) == CHUNKS_MAX


def test_of_progress_only_the_latest_is_kept_beside_the_text() -> None:
    shelf = Shelf()
    shelf.write([said(1, b"line\n", fraction=0.1)], ())
    for number in range(2, 9):
        shelf.write([said(number, b"", 5, fraction=number / 10, message=f"step {number}")], ())
    assert [each.number for each in shelf.read(JOB, brief=False)] == [1, 8]
    (told,) = told_of(shelf.read(JOB, brief=False))
    assert (told.pieces, told.missing) == (((0, b"line\n"),), [])
    assert (told.last.fraction, told.last.message) == (0.8, "step 8")


def test_the_latest_partial_result_outlives_later_reports() -> None:
    shelf = Shelf()
    for number, partial in enumerate((b"[1]", b"[1,2]"), 1):
        shelf.write([said(number, partial=partial)], ())
    stream(shelf, 8, CHUNK_BYTES_MAX)
    shelf.write([said(9, b"", 8 * CHUNK_BYTES_MAX, fraction=0.5)], ())
    (told,) = told_of(shelf.read(JOB, brief=False))
    assert told.partial == b"[1,2]"
    brief = shelf.read(JOB, brief=True)
    assert [(each.number, each.partial, each.text) for each in brief] == [(2, b"[1,2]", b""), (9, b"", b"")]


def test_of_many_starts_the_latest_are_kept_and_a_late_word_of_an_old_one_is_not() -> None:
    shelf = Shelf()
    tokens = [StartToken(1, A, start) for start in range(1, STARTS_MAX + 1)] + [StartToken(2, B, 1)]
    for token in tokens:
        stream(shelf, 1, 3, token)
    shelf.write([said(2, b"late", 3, token=tokens[0])], ())
    assert [told.token for told in told_of(shelf.read(JOB, brief=False))] == tokens[1:]


def test_a_piece_that_did_not_arrive_is_shown_as_missing() -> None:
    (told,) = told_of([said(1, b"one\n"), said(3, b"three\n", 8)])
    assert told.pieces == ((0, b"one\n"), (8, b"three\n"))
    assert told.missing == [(4, 8)]
    (told,) = told_of([said(1, b"one\n"), said(3, b"", 8, fraction=1.0)])
    assert (told.missing, told.said) == ([(4, 8)], 8)


def test_a_character_that_was_cut_between_two_reports_is_whole_again() -> None:
    umlaut = "ü".encode()
    (told,) = told_of([said(2, umlaut[1:], 1), said(1, umlaut[:1])])
    assert told.pieces == ((0, umlaut),)


def test_what_is_deleted_goes_before_what_is_new() -> None:
    shelf = Shelf()
    shelf.write([said(1, b"old")], ())
    shelf.write([said(2, b"new", 3)], (JOB,))
    assert [each.number for each in shelf.read(JOB, brief=False)] == [2]


# -------------------------------------------------------------------------------------- the way to the disks


class Talk:
    """A mesh with one job that runs until it is told to end."""

    def __init__(self, letters: str = "abc", first: str = "a", **more: Any) -> None:
        self.mesh = mesh = Mesh(letters, **more)
        mesh.verdict = lambda begun: None
        spec = mesh.spec(first, max_losses=3)
        self.job: JobId = spec.id
        mesh.submit(NodeId(first[0] * 16), spec)
        mesh.run_until(lambda: bool(mesh.begun))
        mesh.run(0.1)

    @property
    def start(self) -> Begun:
        return self.mesh.begun[-1]

    def numbers(self, node: NodeId) -> list[int]:
        return [each.number for each in self.mesh.disks[node].reports(self.job, brief=False)]

    def hear(self, reader: NodeId, *nodes: NodeId, **more: Any) -> ReportsDone:
        request = self.mesh.ask_reports(reader, self.job, *nodes, **more)
        self.mesh.run_until(lambda: request in self.mesh.reports)
        return self.mesh.reports[request]

    def end(self) -> None:
        start = self.start
        self.mesh.end_run(start.node, start.job, start.token, succeeded())
        self.mesh.run_until(lambda: self.mesh.settled(self.job))


def test_a_report_is_on_the_disk_of_every_holder_and_noted() -> None:
    talk = Talk()
    talk.mesh.say(talk.start, 1, b"hello\n", fraction=0.5, message="half")
    talk.mesh.run(0.1)
    for node in (A, B, C):
        (said,) = talk.mesh.disks[node].reports(talk.job, brief=False)
        assert (said.text, said.fraction, said.runner, said.attempt) == (b"hello\n", 0.5, A, 1)
    assert len(talk.mesh.messages(Noted, to=A)) == 2
    talk.mesh.run(10.0)
    assert len(talk.mesh.messages(Report)) == 2, "what was noted is not repeated"


def test_a_start_that_says_nothing_costs_no_message_and_no_row() -> None:
    talk = Talk()
    talk.end()
    assert not talk.mesh.messages(Report)
    assert not any(list(disk.shelf.jobs()) for disk in talk.mesh.disks.values())


def test_a_lost_report_is_repeated_and_given_up_in_the_end() -> None:
    talk = Talk()
    lost: list[bool] = []

    def loses(source: NodeId, to: NodeId, message: object) -> bool:
        is_lost = isinstance(message, Report) and to == B and len(lost) < 2
        if is_lost:
            lost.append(True)
        return not is_lost

    talk.mesh.rule = loses
    talk.mesh.say(talk.start, 1, b"x")
    talk.mesh.run_until(lambda: talk.numbers(B) == [1])
    assert talk.numbers(C) == [1]
    talk.mesh.rule = lambda source, to, message: not isinstance(message, Noted)
    talk.mesh.say(talk.start, 2, b"y", 1)
    talk.mesh.run(30.0)
    again = [message for message in talk.mesh.messages(Report, to=B) if message.items[0].number == 2]
    assert len(again) == TRIES_MAX


def test_the_log_of_a_runner_that_died_is_read_at_another_node_and_survives_a_takeover() -> None:
    talk = Talk()
    first = talk.start
    talk.mesh.say(first, 1, b"before the end\n", fraction=0.3)
    talk.mesh.run(0.1)
    talk.mesh.kill(A)
    talk.mesh.run_until(lambda: talk.start != first)
    talk.mesh.say(talk.start, 1, b"again\n")
    talk.mesh.run(0.1)
    for reader in (B, C):
        done = talk.hear(reader)
        assert [told.pieces for told in told_of(done.items)] == [
            ((0, b"before the end\n"),),
            ((0, b"again\n"),),
        ]
        assert [told.last.runner for told in told_of(done.items)] == [A, talk.start.node]
        assert done.unanswered == (A,)


def test_a_reader_that_holds_nothing_hears_the_holders_and_only_them() -> None:
    talk = Talk("abcd", "abc")
    talk.mesh.say(talk.start, 1, b"text", fraction=0.9, message="soon")
    talk.mesh.run(0.1)
    done = talk.hear(D, A, B, C, brief=True)
    (said,) = done.items
    assert (said.fraction, said.message, said.text) == (0.9, "soon", b"")
    assert done.unanswered == ()
    assert len(talk.mesh.messages(AskReports)) == 3


def test_a_reader_does_not_wait_for_ever() -> None:
    talk = Talk("abcd", "abc")
    talk.mesh.rule = lambda source, to, message: source != B
    began = talk.mesh.now
    assert talk.hear(D, A, B, timeout_s=0.5).unanswered == (B,)
    assert talk.mesh.now - began < 0.6


def test_a_report_makes_no_job_and_changes_none() -> None:
    talk = Talk("abcd", "abc")
    before = {node: talk.mesh.record(node, talk.job) for node in (A, B, C)}
    talk.mesh.tell(A, D, Report((said(1, b"x", job=talk.job), said(1, b"y"))))
    talk.mesh.tell(A, B, Report((said(1, b"x", job=talk.job),)))
    talk.mesh.run(0.1)
    assert not talk.mesh.has(D, talk.job)
    assert not talk.mesh.has(D, JOB)
    assert not list(talk.mesh.disks[D].shelf.jobs())
    assert {node: talk.mesh.record(node, talk.job) for node in (A, B, C)} == before


def test_a_report_beyond_the_limits_is_not_kept() -> None:
    talk = Talk()
    for number, more in enumerate(
        (
            {"text": bytes(CHUNK_BYTES_MAX + 1)},
            {"partial": bytes(PARTIAL_BYTES_MAX + 1)},
            {"text": b"a", "partial": b"b"},
            {"fraction": 1.5},
        ),
        1,
    ):
        talk.mesh.tell(A, B, Report((said(number, job=talk.job)._replace(**more),)))
    talk.mesh.run(0.1)
    assert talk.numbers(B) == []


def test_the_log_goes_when_its_job_shrinks_to_a_marker_and_does_not_come_back() -> None:
    talk = Talk()
    talk.mesh.say(talk.start, 1, b"words\n")
    talk.end()
    assert talk.numbers(B) == [1]
    table = talk.mesh.nodes[B].desk.table
    table.put(shrunk(talk.mesh.record(B, talk.job)))
    talk.mesh.run(1.5)
    assert talk.numbers(B) == []
    talk.mesh.tell(A, B, Report((said(2, b"late", job=talk.job),)))
    talk.mesh.run(0.1)
    assert talk.numbers(B) == []


def test_a_stopped_start_is_history_too_but_one_that_is_over_says_nothing() -> None:
    talk = Talk()
    start = talk.start
    talk.mesh.say(start, 1, b"said\n")
    talk.end()
    sent = len(talk.mesh.messages(Report))
    talk.mesh.say(start, 2, b"from nowhere\n", 5)
    talk.mesh.run(0.1)
    assert len(talk.mesh.messages(Report)) == sent
    assert talk.numbers(B) == [1]


def test_what_a_start_on_another_node_says_reaches_the_holders() -> None:
    talk = Talk("abcd", "abc", slots={A: 0, B: 0, C: 0, D: 1})
    assert talk.start.node == D
    talk.mesh.say(talk.start, 1, b"from afar\n")
    talk.end()
    assert {node: talk.numbers(node) for node in (A, B, C, D)} == {A: [1], B: [1], C: [1], D: []}


def test_a_disk_that_refuses_forgets_what_was_to_be_said_and_asked() -> None:
    talk = Talk()
    talk.mesh.full.add(A)
    talk.mesh.say(talk.start, 1, b"lost\n")
    talk.mesh.run(RUN_S)
    assert talk.numbers(A) == []
    assert talk.hear(A).items == ()


# -------------------------------------------------------------------------------------------- newcomers

SOON = Settings(jobs=JobSettings(rereplicate_after_s=1.0))


def test_who_becomes_a_holder_later_gets_what_was_said_before() -> None:
    """The holders that heard it may be gone by the time somebody asks."""
    talk = Talk("abcd", "abc", settings=SOON)
    talk.mesh.say(talk.start, 1, b"early\n", fraction=0.5, message="half")
    talk.mesh.run(0.1)
    talk.mesh.kill(C)
    talk.mesh.run_until(lambda: talk.numbers(D) == [1])
    talk.mesh.run_until(lambda: D in talk.mesh.record(A, talk.job).holders)
    talk.mesh.say(talk.start, 2, b"late\n", 6)
    talk.mesh.run(0.1)
    (told,) = told_of(talk.mesh.disks[D].reports(talk.job, brief=False))
    assert told.pieces == ((0, b"early\nlate\n"),)
    assert len(talk.mesh.messages(AskReports)) == 1, "it asks once"


def test_a_holder_from_the_beginning_asks_nobody() -> None:
    talk = Talk("abcd", "abc")
    talk.mesh.say(talk.start, 1, b"x")
    talk.end()
    talk.mesh.run(3.0)
    assert not talk.mesh.messages(AskReports)


def test_a_newcomer_that_gets_no_answer_goes_on_to_the_next_job() -> None:
    mesh = Mesh("abcd", slots=4, settings=SOON)
    mesh.verdict = lambda begun: None
    specs = mesh.specs(3, "abc", max_losses=3)
    mesh.submit(A, *specs)
    mesh.run_until(lambda: len(mesh.begun) == 3)
    for begun in mesh.begun:
        mesh.say(begun, 1, b"text")
    mesh.run(0.1)
    lost: list[bool] = []

    def loses_the_first(source: NodeId, to: NodeId, message: object) -> bool:
        is_lost = isinstance(message, AskReports) and not lost
        if is_lost:
            lost.append(True)
        return not is_lost

    mesh.rule = loses_the_first
    mesh.kill(C)
    mesh.run_until(lambda: sum(bool(mesh.disks[D].reports(spec.id, brief=False)) for spec in specs) == 2)
    mesh.run(5.0)
    assert len(mesh.messages(AskReports)) == 3


def test_an_answer_that_nobody_asked_for_is_not_kept() -> None:
    talk = Talk("abcd", "abc")
    talk.mesh.tell(B, A, Reports(0, (Said(talk.job, TOKEN, 9, B, 1, 0.0, -1.0, "", 0, b"forged", b""),)))
    talk.mesh.run(0.1)
    assert talk.numbers(A) == []
