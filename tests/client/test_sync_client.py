"""Client: the same results and errors as AsyncClient, from any thread."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake import FakeCluster

from lattice_core.client import AsyncBatch, AsyncClient, Batch, Client
from lattice_core.errors import InvalidRequest, Unavailable


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """One member, on a loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # grpc.aio's BlockingIOError between loops (see sync.py)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> FakeCluster:
        cluster = FakeCluster()
        await cluster.start("n1")
        return cluster

    cluster = asyncio.run_coroutine_threadsafe(start(), loop).result()
    yield cluster
    asyncio.run_coroutine_threadsafe(cluster.stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def address(cluster: FakeCluster) -> str:
    return cluster.members["n1"].address


def test_operations_work_and_closing_joins_the_thread(cluster: FakeCluster) -> None:
    before = threading.active_count()
    with Client(address(cluster), timeout=5.0) as client:
        revision = client.put(b"key", b"value", timeout=2.0)
        found = client.get(b"key")
        assert found is not None
        assert (found.key, found.value, found.mod_revision) == (b"key", b"value", revision)
        assert client.cas(b"key", b"value", b"new")
        assert [kv.value for kv in client.range(prefix=b"k").kvs] == [b"new"]
        assert client.put(b"key", b"x", if_absent=True).stored is False
        assert client.delete(b"key").deleted == 1
        assert client.delete_range(prefix=b"k").deleted == 0
        assert client.node_status().name == "n1"
        assert client.cluster_status().members[0].name == "n1"
        assert client.transfer_leader("n1").new_leader == "n1"
        with pytest.raises(InvalidRequest):
            client.put(b"", b"value")
    client.close()
    assert threading.active_count() == before
    with pytest.raises(Unavailable):
        client.get(b"key")


def test_threads_share_batches(cluster: FakeCluster) -> None:
    with Client(address(cluster)) as client:
        client.put("warm", "up")
        start = threading.Barrier(16)

        def work(number: int) -> None:
            start.wait()
            for turn in range(20):
                client.put(f"{number}-{turn}", "v")

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(work, range(16)))
    assert len(cluster.kvs) == 321
    assert len(cluster.seen) < 321


def signatures(kind: type) -> dict[str, inspect.Signature]:
    functions = inspect.getmembers(kind, inspect.isfunction)
    return {name: inspect.signature(each) for name, each in functions if not name.startswith("_")}


def test_both_clients_have_the_same_methods_arguments_and_docs() -> None:
    blocking, coroutines = signatures(Client), signatures(AsyncClient)
    assert blocking.pop("scan").return_annotation == "Iterator[KeyValue]"
    assert coroutines.pop("scan").return_annotation == "AsyncIterator[KeyValue]"
    assert blocking.pop("batch").return_annotation == "Batch"
    assert coroutines.pop("batch").return_annotation == "AsyncBatch"
    # The items of one may be async, and only their type differs.
    items = [kind.pop("put_many").parameters for kind in (blocking, coroutines)]
    assert list(items[0]) == list(items[1])
    assert blocking == coroutines
    for kind in (Client, AsyncClient, Batch, AsyncBatch):
        assert all(getattr(kind, name).__doc__ for name in signatures(kind))
    scans = [inspect.signature(kind.scan).parameters for kind in (Client, AsyncClient)]
    assert scans[0] == scans[1]


def test_both_batches_have_the_same_methods_and_arguments() -> None:
    assert signatures(Batch) == signatures(AsyncBatch)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_use_after_fork_is_refused_with_a_clear_error() -> None:
    client = Client("127.0.0.1:1")
    child = os.fork()
    if child == 0:  # pragma: no cover - the child reports by its exit code
        try:
            client.get(b"key")
        except RuntimeError as error:
            os._exit(0 if "fork" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    client.close()
