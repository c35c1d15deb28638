"""What shows that a disk is not the latest of its identity, and what follows from it."""

from __future__ import annotations

import pytest
from job_mesh import A, B, C, StillView

from edgenode.core.settings import VouchingSettings
from edgenode.core.signals import Behind, Cloned, Effect, Log, RememberWords, Send
from edgenode.core.types import NodeId, Past, Word, are_copies, next_boot, starts_of
from edgenode.core.view import Standing
from edgenode.core.vouching import LIVES_TOLD, Vouching, Witness, unknown_word
from edgenode.core.wire import Recall, Recalled

SETTINGS = VouchingSettings()
GRACE_S = 10.0
FIRST = next_boot(0, 5)
SECOND = next_boot(FIRST, 5)
THIRD = next_boot(SECOND, 5)
PAST: Past = (Word(FIRST, 7), Word(SECOND, 10))


def test_the_number_of_a_life_counts_starts_and_tells_copies_apart() -> None:
    assert [starts_of(boot) for boot in (0, FIRST, SECOND, THIRD)] == [0, 1, 2, 3]
    assert FIRST < next_boot(0, 2**32 - 1) < SECOND
    assert are_copies(SECOND, next_boot(FIRST, 6))
    assert not are_copies(SECOND, SECOND)
    assert not are_copies(FIRST, SECOND)
    assert not are_copies(1, 2), "numbers from before there were copies"


@pytest.mark.parametrize(
    ("word", "is_known"),
    [
        (Word(SECOND, 10), True),
        (Word(SECOND, 3), True),
        (Word(SECOND, 11), False),  # put back to an earlier moment of the same life
        (Word(FIRST, 7), True),
        (Word(FIRST, 8), False),  # put back to an earlier moment of a life, and started twice since
        (Word(THIRD, 1), False),  # put back to before a start
        (Word(next_boot(FIRST, 6), 1), False),  # a copy has had a vote
        (Word(next_boot(0, 6), 1), False),  # and that long ago
    ],
)
def test_a_disk_knows_the_lives_and_the_writes_that_are_on_it(word: Word, is_known: bool) -> None:
    assert unknown_word(PAST, [Word(FIRST, 1), word]) == (None if is_known else word)


def test_lives_from_before_those_that_a_disk_still_names_are_left_alone() -> None:
    assert unknown_word((Word(SECOND, 1), Word(THIRD, 0)), [Word(FIRST, 9)]) is None
    assert unknown_word((), [Word(FIRST, 9)]) == Word(FIRST, 9)


def test_a_witness_keeps_the_highest_word_of_each_of_the_latest_lives() -> None:
    witness = Witness(10)
    witness.note(B, FIRST, 5)
    witness.note(B, FIRST, 3)
    witness.note(B, SECOND, 1)
    assert witness.words(B) == (Word(FIRST, 5), Word(SECOND, 1))
    boot = SECOND
    for _ in range(LIVES_TOLD):
        boot = next_boot(boot, 0)
        witness.note(B, boot, 1)
    assert len(witness.words(B)) == LIVES_TOLD
    assert witness.words(B)[-1] == Word(boot, 1)


def test_a_witness_remembers_the_identities_that_it_heard_of_last() -> None:
    witness = Witness(2)
    witness.note(A, FIRST, 1)
    witness.note(B, FIRST, 1)
    witness.note(A, SECOND, 1)
    witness.note(C, FIRST, 1)
    assert (witness.words(A), witness.words(B)) == ((Word(FIRST, 1), Word(SECOND, 1)), ())


def test_what_a_witness_knows_is_packed_and_unpacked() -> None:
    witness, again = Witness(10), Witness(10)
    witness.note(A, FIRST, 1)
    witness.note(B, FIRST, 7)
    witness.note(B, SECOND, 2)
    again.unpack(witness.pack())
    assert [again.words(node) for node in (A, B)] == [witness.words(node) for node in (A, B)]
    again.unpack(b"")


@pytest.mark.parametrize(
    "damaged", [b"\xc1", b"\x01", b"\x91\x01", b"\x91\x93\xa1x\x01\x02", b"\x91\x92\xa1x\x91"]
)
def test_damaged_words_are_no_words(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="words"):
        Witness(10).unpack(damaged)


class Bench:
    """A's vouching in its third life, with the members B and C, and a clock that moves when told."""

    def __init__(self, past: Past | None = PAST, *, behind: bool = False, words: bytes = b"") -> None:
        self.view = StillView(A, dict.fromkeys((A, B, C), Standing.LIVING), boot=THIRD)
        self.vouching = Vouching(self.view, SETTINGS, behind=behind, grace_s=GRACE_S)
        self.now = 100.0
        self.vouching.boot_up(past, words, self.now)

    def look(self) -> list[Effect]:
        self.vouching.on_time(self.now)
        self.vouching.check()
        return list(self.vouching.take_effects())

    def tell(self, source: NodeId, *words: Word, latest: int = THIRD, lives: bool = False) -> list[Effect]:
        self.vouching.on_recalled(source, Recalled(THIRD, words, latest, lives), 4, self.now)
        return self.look()

    def asked(self) -> list[NodeId]:
        return [effect.to for effect in self.look() if isinstance(effect, Send)]


def ends(effects: list[Effect]) -> list[type[Effect]]:
    return [type(effect) for effect in effects if isinstance(effect, Behind | Cloned)]


def test_a_new_identity_has_a_vote_at_once_and_asks_all_the_same() -> None:
    bench = Bench(())
    assert bench.vouching.has_vote
    bench.vouching.link_up(B, bench.now)
    assert bench.asked() == [B]


def test_there_is_no_vote_before_everybody_who_may_be_there_has_told() -> None:
    bench = Bench()
    assert not bench.vouching.has_vote
    bench.tell(B, Word(SECOND, 10))
    assert not bench.vouching.has_vote
    bench.view.standings[C] = Standing.UNKNOWN
    bench.look()
    assert not bench.vouching.has_vote
    bench.view.standings[C] = Standing.SILENT
    bench.look()
    assert bench.vouching.has_vote


def test_who_lives_for_others_only_is_not_waited_for_longer_than_the_grace_time() -> None:
    bench = Bench()
    bench.vouching.link_up(B, bench.now)
    bench.tell(B)
    bench.now += GRACE_S - 0.1
    bench.look()
    assert not bench.vouching.has_vote
    bench.now = bench.vouching.deadline()
    bench.look()
    assert bench.vouching.has_vote


def test_after_the_grace_time_too_most_members_have_to_tell() -> None:
    bench = Bench()
    bench.now += GRACE_S
    bench.look()
    assert not bench.vouching.has_vote
    bench.vouching.link_up(C, bench.now)
    bench.tell(B)
    assert not bench.vouching.has_vote, "who has a link answers"


def test_a_linked_stranger_may_know_too() -> None:
    bench = Bench()
    stranger = NodeId("stranger")
    bench.vouching.link_up(stranger, bench.now)
    bench.tell(B)
    bench.tell(C)
    assert not bench.vouching.has_vote
    bench.tell(stranger)
    assert bench.vouching.has_vote


def test_who_may_have_peers_has_no_vote_before_it_is_known_whether_it_has() -> None:
    bench = Bench()
    bench.view.standings = {A: Standing.LIVING}
    bench.view.formed = False
    bench.look()
    assert not bench.vouching.has_vote
    bench.view.formed = True
    bench.look()
    assert bench.vouching.has_vote


def test_in_a_large_mesh_the_word_of_some_stands_for_all() -> None:
    bench = Bench()
    crowd = [NodeId(f"member {number}") for number in range(100)]
    bench.view.standings.update(dict.fromkeys(crowd, Standing.LIVING))
    for node in crowd[: SETTINGS.enough - 1]:
        bench.tell(node)
    assert not bench.vouching.has_vote
    bench.tell(crowd[SETTINGS.enough])
    assert bench.vouching.has_vote


def test_who_has_told_is_remembered_only_while_that_decides_something() -> None:
    """Identities come and go for as long as a mesh lives."""
    bench = Bench()
    bench.tell(B)
    assert bench.vouching._told == {B}
    bench.tell(C)
    bench.tell(NodeId("a later one"))
    assert not bench.vouching._told


def test_a_question_is_repeated_until_it_is_answered_or_its_receiver_is_gone() -> None:
    bench = Bench()
    for node in (B, C):
        bench.vouching.link_up(node, bench.now)
    assert sorted(bench.asked()) == [B, C]
    assert bench.asked() == []
    bench.tell(B)
    bench.now = bench.vouching.deadline()
    assert bench.asked() == [C]
    bench.vouching.link_down(C)
    bench.view.standings[C] = Standing.SILENT
    bench.now = bench.vouching.deadline()
    assert bench.asked() == []
    assert bench.vouching.deadline() == float("inf")


@pytest.mark.parametrize("word", [Word(SECOND, 11), Word(next_boot(FIRST, 9), 1), Word(THIRD, 5)])
def test_a_word_that_the_disk_does_not_know_takes_the_vote_also_later(word: Word) -> None:
    bench = Bench()
    bench.tell(B)
    bench.tell(C)
    assert bench.vouching.has_vote
    assert ends(bench.tell(C, word)) == [Behind]
    assert not bench.vouching.has_vote


def test_words_that_the_disk_knows_take_nothing() -> None:
    bench = Bench()
    words = (Word(FIRST, 7), Word(SECOND, 10), Word(THIRD, 4))
    assert not ends(bench.tell(B, *words) + bench.tell(C, *words))
    assert bench.vouching.has_vote


def test_a_later_start_that_is_remembered_puts_the_next_life_above_it() -> None:
    bench = Bench()
    later = next_boot(THIRD, 3)
    (effect,) = [e for e in bench.tell(B, latest=later) if isinstance(e, Behind)]
    assert effect.above == later
    bench = Bench()
    bench.vouching.on_rival(later, is_living=False, now=bench.now)
    (effect,) = [e for e in bench.look() if isinstance(e, Behind)]
    assert effect.above == later


def test_a_disk_that_is_behind_never_has_a_vote_again() -> None:
    bench = Bench(behind=True)
    assert not ends(bench.tell(B, Word(SECOND, 11)) + bench.tell(C))
    assert not bench.vouching.has_vote
    assert bench.vouching.deadline() == float("inf"), "there is nothing to wait for"


def test_an_answer_to_an_earlier_life_says_nothing() -> None:
    bench = Bench()
    bench.vouching.on_recalled(B, Recalled(SECOND, (Word(SECOND, 99),), SECOND, False), 0, bench.now)
    assert not ends(bench.look())
    bench.tell(C)
    assert not bench.vouching.has_vote


def test_two_that_meet_agree_on_which_of_them_ends() -> None:
    for other, end in ((SECOND, []), (next_boot(THIRD, 0), [Cloned])):
        bench = Bench()
        bench.vouching.on_clone(other, keeps=False, now=bench.now)
        assert ends(bench.look()) == end


def test_who_has_a_vote_ends_for_a_later_life_only() -> None:
    copies = next_boot(SECOND, 4), next_boot(SECOND, 6)
    for other, end in zip(copies, ([], [Cloned]), strict=True):
        bench = Bench()
        bench.tell(B)
        bench.tell(C)
        bench.vouching.on_clone(other, keeps=True, now=bench.now)
        assert ends(bench.look()) == end


@pytest.mark.parametrize(
    ("other", "patience_s"),
    [(next_boot(SECOND, 6), SETTINGS.yield_s), (next_boot(SECOND, 4), SETTINGS.insist_s)],
    ids=["a later one", "an earlier one"],
)
def test_who_has_no_vote_yet_ends_when_the_others_keep_to_another_life(other: int, patience_s: float) -> None:
    bench = Bench()
    began = bench.now
    while bench.now < began + patience_s:
        assert not ends(bench.tell(B, latest=other, lives=True))
        assert not bench.vouching.has_vote
        bench.now += 0.5
    assert ends(bench.tell(B, latest=other, lives=True)) == [Cloned]


def test_who_has_a_vote_ends_when_the_others_go_on_keeping_to_an_earlier_life() -> None:
    """That one knows that it is behind, and so is in nobody's way: it does not end."""
    bench = Bench()
    bench.tell(B)
    bench.tell(C)
    assert bench.vouching.has_vote
    began = bench.now
    while bench.now < began + SETTINGS.insist_s:
        bench.vouching.on_clone(next_boot(SECOND, 4), keeps=True, now=bench.now)
        assert not ends(bench.look())
        bench.now += 0.5
    bench.vouching.on_clone(next_boot(SECOND, 4), keeps=True, now=bench.now)
    assert ends(bench.look()) == [Cloned]


def test_a_process_that_was_just_killed_seems_to_live_for_a_moment_only() -> None:
    bench = Bench()
    killed = next_boot(SECOND, 6)
    bench.tell(B, latest=killed, lives=True)
    bench.now += 1.0
    bench.tell(B)
    bench.tell(C)
    assert not bench.vouching.has_vote, "it was contested just now"
    bench.now = bench.vouching.deadline()
    assert not ends(bench.look())
    assert bench.vouching.has_vote


def test_the_copy_that_others_keep_to_is_complained_of_once() -> None:
    bench = Bench()
    logs = [
        effect
        for _ in range(3)
        for effect in bench.tell(B, latest=next_boot(SECOND, 4), lives=True)
        if isinstance(effect, Log)
    ]
    assert [log.kind for log in logs] == ["identity-clash"]


def test_a_question_is_answered_with_all_words_and_who_lives() -> None:
    bench = Bench()
    bench.vouching.heard(B, FIRST, 3)
    bench.vouching.heard(B, SECOND, 0)
    bench.view.boots[B] = THIRD
    assert not bench.vouching.on_recall(B, Recall(THIRD, (Word(FIRST, 3), Word(SECOND, 0))))
    assert bench.look() == [Send(B, Recalled(THIRD, (Word(FIRST, 3),), THIRD, False), urgent=True)]
    assert bench.vouching.on_recall(B, Recall(SECOND, (Word(next_boot(0, 9), 3),))), (
        "it shows to be behind here"
    )
    (effect,) = bench.look()
    assert effect == Send(B, Recalled(SECOND, (Word(FIRST, 3),), THIRD, True), urgent=True)


def test_what_was_heard_is_kept_now_and_then() -> None:
    bench = Bench(())
    assert not bench.look()
    bench.vouching.heard(B, FIRST, 3)
    bench.now = bench.vouching.deadline()
    (kept,) = bench.look()
    assert isinstance(kept, RememberWords)
    assert bench.vouching.deadline() == float("inf")
    again = Bench(words=kept.packed)
    again.vouching.on_recall(B, Recall(SECOND, ()))
    (effect,) = again.look()
    assert isinstance(effect, Send)
    assert isinstance(effect.message, Recalled)
    assert effect.message.words == (Word(FIRST, 3),)


def test_damaged_words_on_the_disk_are_reported() -> None:
    (log,) = Bench(words=b"\xc1").look()
    assert isinstance(log, Log)
    assert (log.kind, log.warning) == ("words-damaged", True)
