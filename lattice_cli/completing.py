"""What a shell is told when somebody presses Tab: commands and options by the code, keys and members by the cluster.

Nobody waits for a cluster that does not answer, and nobody sees an error in the middle of the line that he types: after
:data:`ASK_SECONDS`, or whatever goes wrong, there is simply nothing to offer.

Keys are offered a level at a time, as files are: of a thousand that begin with ``jobs/`` only that, until it is typed.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import TYPE_CHECKING

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from lattice_cli.options import as_bytes, resolve

if TYPE_CHECKING:
    from lattice_core.client import Client, ClusterStatus

ASK_SECONDS = 0.3

SEPARATOR = b"/"

MOST_OFFERED = 100
"""More than anybody reads; and a page of keys comes quickly."""

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _quietly(complete: Completer) -> Completer:
    @wraps(complete)
    def completer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            return complete(ctx, param, incomplete)
        except Exception:  # whatever it is, a prompt is no place to say so
            return []

    return completer


def _client(ctx: click.Context) -> Client:
    """Of the cluster that the line, as far as it is typed, is about."""
    return dataclasses.replace(resolve(ctx), timeout=ASK_SECONDS).client()


@_quietly
def keys(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Keys that begin so. From any member, whatever it has applied."""
    with _client(ctx) as client:
        return [CompletionItem(text) for text in _printable(_next_levels(client, as_bytes(incomplete)))]


def _next_levels(client: Client, typed: bytes) -> Iterator[bytes]:
    """Keys up to their next separator. A level with one key is that key: nobody needs to be asked there."""
    from lattice_core.kv.commands import prefix_range

    start, after = prefix_range(typed)
    end = after or None
    deadline = time.monotonic() + ASK_SECONDS
    offered = 0
    while (left := deadline - time.monotonic()) > 0:
        page = client.range(start=start, end=end, limit=MOST_OFFERED, keys_only=True, consistency="stale", timeout=left)
        level, only = b"", b""
        for key in (kv.key for kv in page.kvs):
            if level and key.startswith(level):
                if only:
                    yield level
                only = b""
                continue
            if only:
                yield only
            place = key.find(SEPARATOR, len(typed))
            level, only = key[: place + 1] if place >= 0 else b"", key
            offered += 1
        if only:
            yield only
        if not page.more or offered >= MOST_OFFERED:
            return
        # What follows within the level that was begun has been offered with it.
        start = prefix_range(level)[1] if level and not only else page.kvs[-1].key + b"\0"


def _printable(found: Iterator[bytes]) -> Iterator[str]:
    """What can be typed; a line each."""
    for key in found:
        try:
            text = key.decode()
        except UnicodeDecodeError:
            continue
        if text.isprintable():
            yield text


def _status(ctx: click.Context) -> ClusterStatus:
    with _client(ctx) as client:
        return client.cluster_status(timeout=ASK_SECONDS)


def _members(ctx: click.Context, incomplete: str, wanted: Callable[[str], bool]) -> list[CompletionItem]:
    from lattice_cli.render.tables import kind_of

    status = _status(ctx)
    kinds = {each.name: "leader" if each is status.leader else kind_of(each) for each in status.members}
    chosen = [name for name, kind in kinds.items() if name.startswith(incomplete) and wanted(kind)]
    return [CompletionItem(name, help=kinds[name]) for name in chosen]


@_quietly
def members(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Every member, with what it is."""
    return _members(ctx, incomplete, lambda _kind: True)


@_quietly
def learners(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Those that can be promoted."""
    return _members(ctx, incomplete, lambda kind: kind.startswith("learner"))


@_quietly
def successors(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Voters that can take over."""
    return _members(ctx, incomplete, lambda kind: kind == "voter")


@_quietly
def contexts(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of contexts, with their endpoints."""
    from lattice_cli.contexts import load

    found = load().by_name
    return [CompletionItem(name, help=found[name].endpoints) for name in sorted(found) if name.startswith(incomplete)]


def _described(known: Mapping[str, str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name, help=text) for name, text in known.items() if name.startswith(incomplete)]


def _listed(known: Mapping[str, str], incomplete: str) -> list[CompletionItem]:
    """The last of several, with a comma between them. None is offered twice."""
    before, comma, last = incomplete.rpartition(",")
    chosen = set(before.split(","))
    left = {name: text for name, text in known.items() if name not in chosen}
    return [CompletionItem(f"{before}{comma}{item.value}", help=item.help) for item in _described(left, last)]


@_quietly
def plants(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Bugs that the simulator can be given."""
    from lattice_core.sim.plants import PLANTS

    return _described({"list": "name them", **{name: each.description for name, each in PLANTS.items()}}, incomplete)


@_quietly
def faults(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Kinds of faults, with commas."""
    from lattice_cli.chaos.plan import KINDS

    first = {} if "," in incomplete else {"list": "name them"}
    return _listed({**{name: each.text for name, each in KINDS.items()}, **first}, incomplete)


@_quietly
def workloads(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What chaos has clients do, with commas."""
    from lattice_cli.chaos.workloads import WORKLOADS

    return _listed(dict.fromkeys(WORKLOADS, ""), incomplete)


ADMIN = "admin"


@_quietly
def roles(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Roles, the one that is built in too."""
    with _client(ctx) as client:
        found = client.access.info(timeout=ASK_SECONDS).roles
    return _described({ADMIN: "built in", **{each.name: "" for each in found}}, incomplete)


@_quietly
def own_roles(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Roles that are not built in: those that can be changed."""
    with _client(ctx) as client:
        return _described({each.name: "" for each in client.access.info(timeout=ASK_SECONDS).roles}, incomplete)


@_quietly
def users(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Users, with their roles."""
    with _client(ctx) as client:
        found = client.access.info(timeout=ASK_SECONDS).users
    return _described({each.name: ", ".join(each.roles) for each in found}, incomplete)


@_quietly
def tokens(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Tokens by their id, with whose they are."""
    with _client(ctx) as client:
        found = client.access.info(timeout=ASK_SECONDS).tokens
    return _described({each.id: each.user for each in found}, incomplete)


# -- shells ------------------------------------------------------------------------------------------


class LatticeBash(BashComplete):
    """Takes the line as it is: bash itself breaks words at colons, which keys have. Quotes what it offers."""

    source_template = r"""
# Words are taken from the line, for bash would break them at colons; what it has broken off is not repeated.
%(complete_func)s() {
    local line="${COMP_LINE:0:COMP_POINT}" kind value open="" broken=""
    local typed="${line##*[[:space:]]}"
    case "$typed" in
        \'* | \"*) open=yes ;;
        *[:=]*) broken="${typed%%"${typed##*[:=]}"}" ;;
    esac
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case "$kind" in
            dir) compopt -o dirnames 2>/dev/null ;;
            file) compopt -o default 2>/dev/null ;;
            plain)
                [[ $value == */ ]] && compopt -o nospace 2>/dev/null
                value="${value#"$broken"}"
                [[ -z $open ]] && printf -v value %%q "$value" && value="${value//\\,/,}"
                COMPREPLY+=("$value")
                ;;
        esac
    done < <(COMP_WORDS="$line" %(complete_var)s=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ.get("COMP_WORDS", "")
        words = split_arg_string(line)[1:]
        incomplete = words.pop() if words and not re.search(r"\s$", line) else ""
        return words, incomplete


class LatticeZsh(ZshComplete):
    """Adds no blank after a level of keys."""

    source_template = ZshComplete.source_template.replace(
        '                completions+=("$key")\n',
        '                if [[ "$key" == */ ]]; then levels+=("$key"); else completions+=("$key"); fi\n',
    ).replace(
        '    if [ -n "$completions" ]; then\n',
        '    if [ -n "$levels" ]; then\n'
        "        compadd -U -V unsorted -S '' -a levels\n"
        "    fi\n\n"
        '    if [ -n "$completions" ]; then\n',
    ).replace("    local -a response\n", "    local -a response\n    local -a levels\n")  # fmt: skip


class LatticeFish(FishComplete):
    """Keys may have commas."""

    source_template = FishComplete.source_template.replace('string split "," $c', 'string split -m 1 "," $c')


SHELLS: dict[str, type[ShellComplete]] = {"bash": LatticeBash, "zsh": LatticeZsh, "fish": LatticeFish}


def script(shell: str) -> str:
    """The script that a shell loads. Kept in completions/ too; a test says when that is out of date."""
    from lattice_cli.main import cli

    completer = SHELLS[shell](cli, {}, "lattice", "_LATTICE_COMPLETE")
    # Not completer.source(): for bash that starts a bash, to look at its version.
    return completer.source_template % completer.source_vars()


def answer(cli: click.Command) -> int:
    """Tell the shell that asks (``_LATTICE_COMPLETE``) what there is; the exit code."""
    shell, _, _ = os.environ["_LATTICE_COMPLETE"].partition("_")
    for kind in SHELLS.values():
        add_completion_class(kind)
    if shell not in SHELLS:
        return 1
    try:
        click.echo(SHELLS[shell](cli, {}, "lattice", "_LATTICE_COMPLETE").complete())
    except Exception:
        return 1
    return 0
