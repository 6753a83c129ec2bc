"""``lattice snapshot``: take one, save one, look into one, begin a cluster with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lattice_cli.declare import group
from lattice_cli.options import common_options, completed_by, resolve
from lattice_core.errors import Fatal, InvalidRequest, NotASnapshot, StorageDamaged, Unavailable


@group()
@common_options
def snapshot() -> None:
    """Snapshots: compact members' logs now, save a backup, check one, begin a new cluster with it.

    Examples: lattice snapshot take    lattice snapshot save backup.snap    lattice snapshot inspect backup.snap
    """


@snapshot.command("take")
@click.option(
    "--member",
    metavar="NAME",
    shell_complete=completed_by("members"),
    help="Only this member. [default: every reachable one]",
)
@common_options
@click.pass_context
def take(ctx: click.Context, member: str | None) -> None:
    """Have members take a snapshot now, and compact their logs.

    Examples: lattice snapshot take    lattice snapshot take --member n2
    """
    from lattice_cli.render import documents, storage

    options = resolve(ctx)
    with options.client() as client:
        taken = client.take_snapshot(member, timeout=options.asked_timeout)
    if options.output == "json":
        documents.print_document(storage.taken_document(taken))
    elif options.output == "table":
        storage.taken_table(taken, no_color=options.no_color)
    else:
        storage.taken_lines(taken)
    for each in taken:
        # One that is away takes its own when it is back; that is no failure, unless it was meant.
        if each.error is not None and (each.reachable or member is not None):
            raise each.error
        if each.error is not None:
            click.echo(f"skipped: {each.error}", err=True)
    if all(each.error is not None for each in taken):
        raise Unavailable("snapshot take: no member could be reached")


@snapshot.command("save")
@click.argument("file", type=click.Path(path_type=Path))
@common_options
@click.pass_context
def save(ctx: click.Context, file: Path) -> None:
    """Save a fresh snapshot of the cluster's data as the new FILE, while the cluster goes on serving.

    From the first of --endpoints that answers. FILE appears when it is whole, checked and durable; until then it
    is written as FILE.part. One that was left there by a save that was killed is written over.

    Examples: lattice snapshot save backup.snap    lattice snapshot save --endpoints 127.0.0.1:7402 backup.snap
    """
    from lattice_cli.render import documents, storage

    options = resolve(ctx)
    progress = storage.ProgressLine()
    with options.client() as client:
        try:
            saved = client.save_snapshot(file, progress=progress.show, timeout=options.asked_timeout)
        finally:
            progress.clear()
    if saved.replaced is not None:
        click.echo(f"wrote over {saved.replaced}, which a save that was cut short had left", err=True)
    document = {"file": saved.path, "index": saved.index, "term": saved.term, "bytes": saved.size_bytes}
    if options.output == "json":
        documents.print_document(document)
    else:
        storage.pairs({**document, "member": saved.member}, table=options.output == "table", no_color=options.no_color)


@snapshot.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@common_options
@click.pass_context
def inspect(ctx: click.Context, file: Path) -> None:
    """What is in the snapshot FILE, checked from its first byte to its last. Needs no cluster.

    Examples: lattice snapshot inspect backup.snap    lattice snapshot inspect backup.snap -o json
    """
    from lattice_cli.render import documents, storage

    options = resolve(ctx)
    document = describe(file)
    if options.output == "json":
        documents.print_document(document)
    else:
        storage.pairs(document, table=options.output == "table", no_color=options.no_color)


@snapshot.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--data-dir", metavar="DIR", help="Where the member's data goes: empty, or not there yet. "
    "[default: ./lattice-data]")  # fmt: skip
@click.option("--name", metavar="NAME", help="The member's name. [default: n1]")
@click.option("--client-addr", metavar="H:P", help="Where clients will connect. [default: 127.0.0.1:7400]")
@click.option("--peer-addr", metavar="H:P", help="Where other members will connect. [default: 127.0.0.1:7500]")
@click.option(
    "--initial-cluster",
    metavar="NAME=H:P,...",
    help="All members of the new cluster by peer address, the same on each. Without it: a cluster of one.",
)
@click.option(
    "--generation",
    type=int,
    default=1,
    metavar="N",
    help="2, 3, ...: this very file was restored before, and that cluster has served. The same on each member. "
    "[default: 1]",
)
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="Settings in TOML.")
@common_options
@click.pass_context
def restore(ctx: click.Context, /, file: Path, generation: int, config_file: Path | None, **flags: Any) -> None:
    """Make a member of a new cluster out of the snapshot FILE. Run it for each member, then start them all.

    The new cluster has the old one's keys and an id of its own, so that no old member can join it. Revisions go
    on a trillion above the saved ones; sessions are forgotten. Settings are those of: lattice start

    Examples: lattice snapshot restore backup.snap
    lattice snapshot restore backup.snap --name n1 --data-dir d1 --client-addr 127.0.0.1:7401
    --peer-addr 127.0.0.1:7501 --initial-cluster n1=127.0.0.1:7501,n2=127.0.0.1:7502
    """
    from lattice_cli import settings
    from lattice_cli.render import documents, recovery, storage

    options = resolve(ctx)
    config = settings.load(flags, config_file=config_file).config
    config.validate()
    if file.exists() and not file.is_file():
        raise InvalidRequest(f"snapshot restore: {file} is not a file", hint="lattice snapshot save FILE")
    from lattice_core.server.restore import restore_snapshot
    from lattice_core.storage.filesystem import RealFileSystem

    progress = storage.ProgressLine()
    try:
        restored = restore_snapshot(RealFileSystem(), str(file), config, generation=generation, progress=progress.count)
    except NotASnapshot as error:
        raise _another_was_meant(error, "restore", file) from None
    finally:
        progress.clear()
    document = recovery.restored_document(restored)
    if options.output == "json":
        documents.print_document(document)
    else:
        storage.pairs(document, table=options.output == "table", no_color=options.no_color)
        click.echo(recovery.next_line(restored.member.identity, restored.data_dir), err=True)


def _another_was_meant(error: NotASnapshot, command: str, file: Path) -> InvalidRequest:
    """What was named is no snapshot: usage, and not damage, which a cluster would have to do with."""
    reason = error.message.rpartition(": ")[2]
    return InvalidRequest(f"snapshot {command}: {file}: {reason}", hint="lattice snapshot save FILE, to have one")


def describe(file: Path) -> dict[str, Any]:
    """Everything there is to say about a whole snapshot file. Raises StorageDamaged, InvalidRequest, Fatal."""
    from lattice_cli.render.text import hex_id
    from lattice_core.storage.filesystem import RealFileSystem
    from lattice_core.storage.snapshots import SnapshotReader

    if not file.is_file():
        what = "is not a file" if file.exists() else "does not exist"
        raise InvalidRequest(f"snapshot inspect: {file} {what}", hint="lattice snapshot save FILE")
    header: dict[str, Any] = {}
    found = {"keys": 0, "sessions": 0}
    ended = False
    try:
        with SnapshotReader(RealFileSystem(), str(file)) as reader:
            for chunk in reader.objects():
                kind = chunk[0]
                if kind == "header":
                    header = dict(chunk[1])
                elif kind in found:
                    found[kind] += len(chunk[1])
                ended = kind == "end"
            size, meta, cluster_id = reader.size_bytes, reader.header.meta, reader.header.cluster_id
    except NotASnapshot as error:
        raise _another_was_meant(error, "inspect", file) from None
    except StorageDamaged as error:
        error.hint = "another snapshot, or a fresh one: lattice snapshot save FILE"
        raise
    except (TypeError, ValueError, KeyError, IndexError):
        raise Fatal(f"{file} is whole, but holds no state of Lattice", hint="lattice snapshot save FILE") from None
    if not ended or any(header.get(kind) != count for kind, count in found.items()):
        raise Fatal(f"{file} is whole, but its state is not complete", hint="lattice snapshot save FILE")
    configuration = meta.configuration
    return {
        "file": str(file),
        "cluster_id": hex_id(cluster_id),
        "index": meta.last_included_index,
        "term": meta.last_included_term,
        "members": [
            {
                "name": member.name,
                "id": hex_id(member.id),
                "peer_addr": member.peer_addr,
                "voter": configuration.is_voter(member.id),
            }
            for member in configuration.members
        ],
        "keys": found["keys"],
        "sessions": found["sessions"],
        "revision": header.get("revision"),
        "bytes": size,
        "digest_verified": True,
    }
