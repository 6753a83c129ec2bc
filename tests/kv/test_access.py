"""Users, roles and tokens in the replicated state: what a change does, what is refused, and that all members agree."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lattice_core.errors import Fatal, InvalidRequest, UnknownCommand
from lattice_core.kv import ClientBatch, StateMachine, decode_batch, encode_batch, encode_payload, open_session, put
from lattice_core.kv.access import (
    ADD_USER,
    ADMIN,
    ASSIGN,
    BUILT_IN,
    CREATE_TOKEN,
    DISABLE,
    ENABLE,
    GRANT,
    MAX_USER_TOKENS,
    NO_ADMIN_LEFT,
    NO_ROLE,
    NO_TOKEN,
    NO_USER,
    READ,
    REMOVE_ROLE,
    REMOVE_USER,
    REVOKE,
    REVOKE_TOKEN,
    SET_PASSWORD,
    TOKEN_EXISTS,
    TOO_MANY,
    UNASSIGN,
    USER_EXISTS,
    WRITE,
    Change,
)
from lattice_core.kv.access_state import Access
from lattice_core.kv.commands import change_access, open_session_for
from lattice_core.kv.successor import succeed


def apply(machine: StateMachine, *ops: Any, time_ms: int = 1000) -> list[list[Any]]:
    """The results of these operations as one entry."""
    payload = encode_payload(time_ms, [ClientBatch(0, 0, 0, encode_batch(ops))])
    (result,) = machine.apply(machine.applied_index + 1, 1, payload)
    return result.results


def change(machine: StateMachine, *changes: Change, time_ms: int = 1000) -> list[list[int]]:
    results = apply(machine, *(change_access(each) for each in changes), time_ms=time_ms)
    machine.check()
    return results


def administered() -> StateMachine:
    """Enabled, with one administrator, who has a token."""
    machine = StateMachine()
    done = change(
        machine, (ADD_USER, b"root", None, (ADMIN,)), (CREATE_TOKEN, b"t0", b"root", b"hash", 0, 0), (ENABLE,)
    )
    assert done == [[0]] * 3
    return machine


def copied(machine: StateMachine) -> StateMachine:
    chunks = [msgpack.unpackb(msgpack.packb(chunk)) for chunk in machine.capture().to_chunks()]
    return StateMachine.from_chunks(chunks)


def test_a_role_comes_into_being_with_its_first_grant_and_leaves_its_users_when_it_is_removed() -> None:
    machine = StateMachine()
    assert change(machine, (ADD_USER, b"ann", b"v", (b"ops",))) == [[1, NO_ROLE]]
    assert change(machine, (GRANT, b"ops", READ, b"a/"), (ADD_USER, b"ann", b"v", (b"ops",))) == [[0], [0]]
    assert change(machine, (GRANT, b"ops", WRITE, b"a/"), (GRANT, b"ops", READ, b"b/")) == [[0], [0]]
    assert sorted(machine.access.grants_of(b"ann")) == [(b"a/", WRITE), (b"b/", READ)]
    assert change(machine, (REVOKE, b"ops", b"a/"), (REVOKE, b"ops", b"a/")) == [[0], [1, NO_ROLE]]
    assert list(machine.access.grants_of(b"ann")) == [(b"b/", READ)]
    assert change(machine, (REMOVE_ROLE, b"ops"), (REMOVE_ROLE, b"ops")) == [[0], [1, NO_ROLE]]
    assert machine.access.users[b"ann"].roles == frozenset()


def test_what_does_not_exist_or_exists_already_is_refused_and_changes_nothing() -> None:
    machine = administered()
    before = machine.access
    assert change(
        machine,
        (ADD_USER, b"root", None, ()),
        (REMOVE_USER, b"bob"),
        (SET_PASSWORD, b"bob", b"v"),
        (ASSIGN, b"bob", ADMIN),
        (ASSIGN, b"root", b"nothing"),
        (UNASSIGN, b"root", b"nothing"),
        (GRANT, ADMIN, READ, b""),
        (REVOKE, ADMIN, b""),
        (REMOVE_ROLE, ADMIN),
        (CREATE_TOKEN, b"t0", b"root", b"other", 0, 0),
        (CREATE_TOKEN, b"t1", b"bob", b"hash", 0, 0),
        (REVOKE_TOKEN, b"t1"),
    ) == [
        [1, USER_EXISTS],
        [1, NO_USER],
        [1, NO_USER],
        [1, NO_USER],
        [1, NO_ROLE],
        [1, NO_ROLE],
        [1, BUILT_IN],
        [1, BUILT_IN],
        [1, BUILT_IN],
        [1, TOKEN_EXISTS],
        [1, NO_USER],
        [1, NO_TOKEN],
    ]
    assert machine.access is before


def test_it_is_never_enabled_without_an_administrator_who_can_prove_it_for_good() -> None:
    machine = StateMachine()
    assert change(machine, (ENABLE,)) == [[1, NO_ADMIN_LEFT]]
    change(machine, (ADD_USER, b"root", None, (ADMIN,)))
    assert change(machine, (ENABLE,)) == [[1, NO_ADMIN_LEFT]], "no way to prove it"
    change(machine, (CREATE_TOKEN, b"t0", b"root", b"hash", 10_000, 0))
    assert change(machine, (ENABLE,)) == [[1, NO_ADMIN_LEFT]], "that token expires"
    change(machine, (SET_PASSWORD, b"root", b"v"))
    assert change(machine, (ENABLE,)) == [[0]]


@pytest.mark.parametrize("last", [(REVOKE_TOKEN, b"t0"), (REMOVE_USER, b"root"), (UNASSIGN, b"root", ADMIN)])
def test_the_last_way_in_cannot_be_taken_away_while_it_is_enabled(last: Change) -> None:
    machine = administered()
    assert change(machine, last) == [[1, NO_ADMIN_LEFT]]
    assert change(machine, (DISABLE,), last, (ENABLE,)) == [[0], [0], [1, NO_ADMIN_LEFT]]


def test_removing_a_user_takes_the_tokens_and_a_new_password_takes_the_logins() -> None:
    machine = administered()
    change(
        machine,
        (ADD_USER, b"ann", b"old", ()),
        (CREATE_TOKEN, b"t1", b"ann", b"hash", 0, 0),
        (CREATE_TOKEN, b"t2", b"ann", b"hash", 10_000, 1),
    )
    change(machine, (SET_PASSWORD, b"ann", b"new"))
    assert sorted(machine.access.tokens) == [b"t0", b"t1"]
    change(machine, (REMOVE_USER, b"ann"))
    assert sorted(machine.access.tokens) == [b"t0"]


def test_tokens_are_bounded_and_those_that_have_expired_in_the_logs_time_make_room() -> None:
    machine = administered()
    for number in range(MAX_USER_TOKENS - 1):
        assert change(machine, (CREATE_TOKEN, b"x%d" % number, b"root", b"hash", 5000, 1)) == [[0]]
    assert change(machine, (CREATE_TOKEN, b"y", b"root", b"hash", 0, 0)) == [[1, TOO_MANY]]
    assert change(machine, (CREATE_TOKEN, b"y", b"root", b"hash", 0, 0), time_ms=5000) == [[0]]
    assert sorted(machine.access.tokens) == [b"t0", b"y"]


def test_clients_cannot_put_a_change_or_a_session_in_anothers_name_into_their_batches() -> None:
    """Else whoever may write one key could make himself an administrator."""
    for op in (change_access((DISABLE,)), open_session_for(b"root")):
        with pytest.raises(InvalidRequest, match="the cluster's own"):
            decode_batch(encode_batch([put(b"a", b"1"), op]))


@pytest.mark.parametrize(
    "newer",
    [(99,), (ENABLE, b"more"), (GRANT, b"r", 3, b""), (ADD_USER, b"a", None, (), 1)],
)
def test_a_change_of_a_later_version_halts(newer: Change) -> None:
    with pytest.raises(UnknownCommand):
        apply(StateMachine(), change_access(newer))


@pytest.mark.parametrize(
    "malformed",
    [
        (),
        (0,),
        (b"x",),
        (ADD_USER, b"", None, ()),
        (ADD_USER, b"a", None, (b"",)),
        (GRANT, b"r", READ),
        (GRANT, b"r", 0, b""),
    ],
)
def test_a_malformed_change_is_answered_as_such_and_changes_nothing(malformed: Change) -> None:
    machine = StateMachine()
    assert apply(machine, change_access(malformed)) == []
    assert machine.access.is_empty


def test_the_state_hash_covers_every_part_and_is_what_it_was_where_there_is_none() -> None:
    hashes = set()
    machine = administered()
    for step in (
        (ADD_USER, b"ann", None, ()),
        (SET_PASSWORD, b"ann", b"v"),
        (SET_PASSWORD, b"ann", b"w"),
        (ASSIGN, b"ann", ADMIN),
        (GRANT, b"ops", READ, b"a"),
        (GRANT, b"ops", WRITE, b"a"),
        (CREATE_TOKEN, b"t1", b"ann", b"h", 0, 0),
        (CREATE_TOKEN, b"t2", b"ann", b"h", 0, 1),
        (CREATE_TOKEN, b"t3", b"ann", b"h", 9, 1),
        (DISABLE,),
    ):
        hashes.add(machine.state_hash)
        assert change(machine, step) == [[0]]
        assert machine.state_hash == machine.full_state_hash()
    assert len(hashes | {machine.state_hash}) == 11
    plain, undone = StateMachine(), StateMachine()
    apply(plain, put(b"a", b"1"))
    apply(undone, put(b"a", b"1"), change_access((ADD_USER, b"ann", None, ())), change_access((REMOVE_USER, b"ann")))
    assert plain.state_hash == undone.state_hash


def test_a_snapshot_carries_it_and_one_without_it_is_the_same_as_ever() -> None:
    machine = administered()
    change(machine, (GRANT, b"ops", READ, b"a"), (ADD_USER, b"ann", b"v", (b"ops",)))
    session = apply(machine, open_session_for(b"ann"))[0][1]
    again = copied(machine)
    assert again.access.dump() == machine.access.dump()
    assert again.sessions.owner_of(session) == b"ann"
    assert again.state_hash == machine.state_hash
    again.check()
    plain = StateMachine()
    apply(plain, put(b"a", b"1"), open_session())
    chunks = list(plain.capture().to_chunks())
    assert [chunk[0] for chunk in chunks] == ["header", "sessions", "keys", "end"]
    assert chunks[1] == ["sessions", [[1, 1000, 0, []]]], "four fields, as before sessions had owners"


def test_a_snapshot_whose_access_was_tampered_with_is_refused() -> None:
    chunks = list(administered().capture().to_chunks())
    assert chunks[1][0] == "access"
    chunks[1][1][0] = 0
    with pytest.raises(Fatal, match="hash"):
        StateMachine.from_chunks(chunks)


def test_a_new_cluster_made_from_saved_data_keeps_it() -> None:
    """Whoever has a backup must not come into what its users were kept out of."""
    machine = administered()
    before = machine.access
    succeed(machine)
    assert machine.access is before


NAMES = st.sampled_from([b"a", b"b", ADMIN])
CHANGES = st.one_of(
    st.sampled_from([(ENABLE,), (DISABLE,)]),
    st.tuples(st.just(ADD_USER), NAMES, st.sampled_from([None, b"v"]), st.sampled_from([(), (ADMIN,), (b"b", b"a")])),
    st.tuples(st.sampled_from([REMOVE_USER, REMOVE_ROLE, REVOKE_TOKEN]), NAMES),
    st.tuples(st.just(SET_PASSWORD), NAMES, st.sampled_from([None, b"w"])),
    st.tuples(st.sampled_from([ASSIGN, UNASSIGN, REVOKE]), NAMES, NAMES),
    st.tuples(st.just(GRANT), NAMES, st.sampled_from([READ, WRITE]), NAMES),
    st.tuples(
        st.just(CREATE_TOKEN), NAMES, NAMES, st.just(b"h"), st.sampled_from([0, 1500, 3000]), st.sampled_from([0, 1])
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(CHANGES, st.integers(0, 200)), max_size=40), st.integers(0, 40))
def test_any_changes_come_to_the_same_on_every_member_restored_from_a_snapshot_or_not(
    steps: list[tuple[Change, int]], cut: int
) -> None:
    one, other = StateMachine(digest_log=True), StateMachine(digest_log=True)
    now = 1000
    for number, (step, later) in enumerate(steps):
        now += later
        if number == cut:
            restored = copied(other)
            restored.digest_log = True
            other = restored
        assert change(one, step, time_ms=now) == change(other, step, time_ms=now)
        assert (one.state_hash, one.applied_digest) == (other.state_hash, other.applied_digest)
    assert Access.load(one.access.dump()).dump() == other.access.dump()
