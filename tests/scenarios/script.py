"""Stories about a cluster, as scripts with the whole trace below each step.

A script is a text file of blocks. A block is one or more commands, a line ``----``, and all that happened,
up to an empty line; lines that begin with ``#`` tell the reader what to look at. Time moves only where a
command says so; messages move only when delivered. Commands:

    cluster 3 [learners n4] [spare n5]     begin; a spare server belongs to no cluster yet
    disk n1 term=3 log=1,1,2               what n1 finds on its disk; before ``cluster``
    elect n1                               n1 is first to time out, and wins (told in one line)
    tick n1                                time goes on to what n1 waits for, and only n1 looks at its clock
    pass 600ms                             time goes on and nobody looks
    run 500ms                              the usual course: timers fire, messages take 1 ms (they are not shown)
    deliver [Kind] [n2]                    the oldest message, of that kind, to that server, and what it causes
    settle                                 all messages, and those they cause, until there are none
    drop | duplicate [Kind] [n2]           all such messages are lost; the oldest such arrives once more
    hold | release disk n1 [2]             nothing becomes durable on n1; or it does again (the 2 oldest writes)
    hold | release link n1 n2              what n1 sends to n2 stays on its way; or goes on
    crash | restart n1
    cut n1 n2 | isolate n1 | heal
    unreachable n1 n2                      n1's transport tells it that messages to n2 were dropped
    propose n1 a | read n1 7 | lease n1 | transfer n1 n2 | compact n1
    change n1 add n4 | learn n4 | remove n2
    status | in flight
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness import (
    MS,
    Cluster,
    Disk,
    Server,
    configuration,
    leader_of,
    log_of,
    members,
    show,
    show_configuration,
    show_entry,
)

from lattice_core.raft import messages as raft_messages
from lattice_core.raft.errors import RaftError
from lattice_core.raft.membership import MembershipChange
from lattice_core.raft.messages import Message
from lattice_core.raft.ready import (
    ConfigurationChanged,
    Persist,
    ReadRefused,
    ReadReleased,
    RoleChanged,
    TransferEnded,
)
from lattice_core.raft.types import Entry, HardState, NodeId, RecoveredState, Role, SnapshotMeta


@dataclass
class Block:
    """Commands, what the file says about them, and what the script expects of them."""

    comment: list[str]
    commands: list[str]
    expected: list[str]


def parse(text: str) -> list[Block]:
    """The blocks of a script."""
    blocks = []
    for chunk in text.strip().split("\n\n"):
        lines = chunk.splitlines()
        comment = [line for line in lines if line.startswith("#")]
        rest = [line for line in lines if not line.startswith("#")]
        split = rest.index("----") if "----" in rest else len(rest)
        blocks.append(Block(comment, rest[:split], rest[split + 1 :]))
    return blocks


def render(blocks: list[Block]) -> str:
    """The script again, in the form in which it is kept."""
    chunks = []
    for block in blocks:
        lines = [*block.comment, *block.commands]
        if block.commands:
            lines += ["----", *block.expected]
        chunks.append("\n".join(lines))
    return "\n\n".join(chunks) + "\n"


def play(path: Path) -> str:
    """The script at ``path`` with the trace that it really has."""
    blocks = parse(path.read_text())
    stage = Stage()
    for block in blocks:
        block.expected = []
        for command in block.commands:
            trace = stage.perform(command)
            # Where several commands share a block, each trace says whose it is.
            block.expected += [f"> {command}", *trace] if len(block.commands) > 1 else trace or ["ok"]
    return render(blocks)


class Stage:
    """A cluster, and an ear for all that happens in it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.disks: dict[NodeId, tuple[int, tuple[int, ...]]] = {}
        self.shown = {"sent", "lost"}
        self.cluster: Cluster

    def perform(self, command: str) -> list[str]:
        """Do it, and tell all that came of it."""
        self.lines = []
        verb, *words = command.split()
        method = getattr(self, f"do_{verb}", None)
        if method is None:
            raise ValueError(f"no such command: {command}")
        self.shown = {"sent", "lost"}
        try:
            method(*words)
        except RaftError as error:
            self.lines.append(f"{type(error).__name__}: {error}")
        return self.lines

    # ---- listening ----------------------------------------------------------------------------------

    def heard(self, what: str, message: Message) -> None:
        if what in self.shown:
            self.lines.append({"sent": "  ", "delivered": "", "lost": "  lost: "}[what] + show(message))

    def happened(self, server: Server, what: object) -> None:
        text = self._tell(what)
        if text:
            self.lines.append(f"  {server.name} {text}")

    def _tell(self, what: object) -> str:
        match what:
            case RoleChanged():
                if what.role is Role.FOLLOWER and what.leader_id is not None:
                    return f"follows n{what.leader_id} in term {what.term}"
                return f"is {what.role.value} in term {what.term}: {what.reason}"
            case ConfigurationChanged():
                return f"uses configuration {show_configuration(what.configuration)} of index {what.index}"
            case TransferEnded():
                return f"ends the transfer to n{what.target}: {what.reason or 'a newer term has begun'}"
            case Entry():
                return f"applies {show_entry(what)}"
            case ReadReleased():
                return f"answers read {what.request_id} at index {what.index}"
            case ReadRefused():
                return f"refuses read {what.request_id} (leader: {_name(what.leader_id)})"
            case Persist():
                return f"waits for its disk: {_write(what)}"
        return ""

    # ---- commands -----------------------------------------------------------------------------------

    def do_disk(self, name: str, *words: str) -> None:
        options = dict(word.split("=") for word in words)
        terms = tuple(int(term) for term in options.get("log", "").split(",") if term)
        self.disks[_id(name)] = (int(options.get("term", max(terms, default=0))), terms)

    def do_cluster(self, size: str, *words: str) -> None:
        groups: dict[str, list[NodeId]] = {"learners": [], "spare": []}
        group = ""
        for word in words:
            if word in groups:
                group = word
            else:
                groups[group].append(_id(word))
        first = configuration(range(1, int(size) + 1), learners=groups["learners"])
        begin = SnapshotMeta(0, 0, first)
        disks = {}
        for item in first.members:
            term, terms = self.disks.get(item.id, (0, ()))
            disks[item.id] = Disk(RecoveredState(HardState(term), begin, log_of(*terms)))
        self.cluster = Cluster(first=first, disks=disks, spare=groups["spare"])
        self.cluster.observer = self.heard
        self.cluster.watch.happened = self.happened  # type: ignore[method-assign]
        self.do_status()

    def do_tick(self, name: str) -> None:
        self.cluster.tick(_id(name))

    def do_elect(self, name: str) -> None:
        self.shown = set()
        server = self.cluster.elect(_id(name))
        self.lines = [f"  {name} leads term {server.node.term}"]

    def do_unreachable(self, name: str, peer: str) -> None:
        server = self.cluster[_id(name)]
        server.node.report_unreachable(_id(peer), server.now_ns)

    def do_pass(self, duration: str) -> None:
        self.cluster.pass_time(_duration(duration))

    def do_run(self, duration: str) -> None:
        self.shown = set()
        self.cluster.run(_duration(duration))

    def do_settle(self) -> None:
        self.shown = {"delivered", "lost"}
        self.cluster.settle()

    def do_deliver(self, *words: str) -> None:
        kind, to = _which(words)
        self.shown = {"sent", "delivered", "lost"}
        self.cluster.deliver_first(kind, to=to)

    def do_drop(self, *words: str) -> None:
        kind, to = _which(words)
        self.cluster.drop(kind, to=to)

    def do_duplicate(self, *words: str) -> None:
        kind, to = _which(words)
        found = next(
            item for item in self.cluster.in_flight if isinstance(item.message, kind) and to in (None, item.message.to)
        )
        self.cluster.duplicate(found)

    def do_hold(self, what: str, name: str, peer: str = "") -> None:
        if what == "link":
            self.cluster.held_links.add((_id(name), _id(peer)))
            return
        assert what == "disk"
        self.cluster[_id(name)].disk.held = True

    def do_release(self, what: str, name: str, more: str = "") -> None:
        if what == "link":
            self.cluster.held_links.remove((_id(name), _id(more)))
            return
        assert what == "disk"
        self.cluster[_id(name)].release_disk(int(more) if more else None)

    def do_crash(self, *names: str) -> None:
        self.cluster.crash(*map(_id, names))

    def do_restart(self, *names: str) -> None:
        self.cluster.restart(*map(_id, names))
        for name in names:
            self.lines.append("  " + self._line(self.cluster[_id(name)]))

    def do_cut(self, one: str, other: str) -> None:
        self.cluster.cut((_id(one), _id(other)))

    def do_isolate(self, name: str) -> None:
        self.cluster.isolate(_id(name))

    def do_heal(self) -> None:
        self.cluster.heal()

    def do_propose(self, name: str, text: str) -> None:
        self.cluster[_id(name)].propose(text.encode())

    def do_read(self, name: str, number: str) -> None:
        self.cluster[_id(name)].read(int(number))

    def do_lease(self, name: str) -> None:
        index = self.cluster[_id(name)].lease_read()
        self.lines.append(
            f"  {name} has no lease" if index is None else f"  {name} reads at index {index} by its lease"
        )

    def do_transfer(self, name: str, target: str) -> None:
        self.cluster[_id(name)].transfer(_id(target))

    def do_compact(self, name: str) -> None:
        meta = self.cluster[_id(name)].compact()
        self.lines.append(f"  {name} has a snapshot at {meta.last_included_index}/{meta.last_included_term}")

    def do_change(self, name: str, *words: str) -> None:
        found: dict[str, list[NodeId]] = {"add": [], "learn": [], "remove": []}
        group = ""
        for word in words:
            if word in found:
                group = word
            else:
                found[group].append(_id(word))
        change = MembershipChange(members(*found["add"]), members(*found["learn"]), frozenset(found["remove"]))
        self.cluster[_id(name)].change(change)

    def do_status(self) -> None:
        self.lines += ["  " + self._line(server) for server in self.cluster]

    def do_in(self, flight: str) -> None:
        assert flight == "flight"
        self.lines += ["  " + show(envelope.message) for envelope in self.cluster.in_flight]

    def _line(self, server: Server) -> str:
        if server.down:
            return f"{server.name} is down"
        node = server.node
        log = " ".join(str(node.log.term_at(index)) for index in range(node.first_index, node.last_index + 1))
        begin = f"snapshot {node.log.offset}/{node.log.offset_term}, then " if node.log.offset else ""
        text = f"{server.name} {node.role.value} term={node.term} commit={node.commit_index} log=[{begin}{log}]"
        if node.is_leader:
            matches = ", ".join(f"n{peer}:{item.match_index}" for peer, item in leader_of(server).progress.items())
            text += f" match=({matches})"
        return text


def _id(name: str) -> NodeId:
    return int(name.removeprefix("n"))


def _name(node_id: NodeId | None, nobody: str = "unknown") -> str:
    return nobody if node_id is None else f"n{node_id}"


def _duration(text: str) -> int:
    return int(text.removesuffix("ms")) * MS


def _which(words: tuple[str, ...]) -> tuple[type, NodeId | None]:
    kind: type = object
    to = None
    for word in words:
        if word[0] == "n" and word[1:].isdigit():
            to = _id(word)
        else:
            kind = getattr(raft_messages, word)
    return kind, to


def _write(persist: Persist) -> str:
    parts = []
    if persist.hard_state is not None:
        parts.append(f"term {persist.hard_state.term} vote {_name(persist.hard_state.voted_for, 'nobody')}")
    if persist.snapshot is not None:
        parts.append(f"snapshot {persist.snapshot.last_included_index}/{persist.snapshot.last_included_term}")
    if persist.truncate_from is not None:
        parts.append(f"truncate from {persist.truncate_from}")
    if persist.entries:
        parts.append("append " + ", ".join(show_entry(entry) for entry in persist.entries))
    return f"#{persist.sequence} " + ("; ".join(parts) or "nothing, for the order's sake")
