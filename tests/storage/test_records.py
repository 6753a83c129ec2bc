"""A configuration's bytes: what is written now, and what earlier versions wrote."""

from __future__ import annotations

import msgpack

from lattice_core.raft.types import Configuration, Member, Promotion
from lattice_core.storage.records import decode_configuration, encode_configuration

VOTER, PLAIN = Member(1, "n1", "h:1"), Member(2, "n2", "h:2")
PROMISED, REPLACING = Member(3, "n3", "h:3", Promotion()), Member(4, "n4", "h:4", Promotion(replaces=1))


def test_what_is_meant_to_become_of_a_learner_survives_the_disk() -> None:
    configuration = Configuration((VOTER, PLAIN, PROMISED, REPLACING), frozenset({1}), learners=frozenset({2, 3, 4}))
    assert decode_configuration(encode_configuration(configuration)) == configuration


def test_members_without_an_intent_are_written_as_before_and_read_as_they_were_written() -> None:
    old = {"members": [[1, "n1", "h:1"], [2, "n2", "h:2"]], "voters": [1], "outgoing": [], "learners": [2]}
    configuration = Configuration((VOTER, PLAIN), frozenset({1}), learners=frozenset({2}))
    assert decode_configuration(msgpack.packb(old)) == configuration
    assert encode_configuration(configuration) == msgpack.packb(old)
