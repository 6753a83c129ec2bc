"""The C library's allocator in a server's process (server/allocator.py)."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from lattice_core.server.allocator import ARENAS, limit_arenas

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")

THREADS = 6

COUNT_ARENAS = f"""
import ctypes, os, tempfile, threading
from lattice_core.server.run import tune_interpreter

tune_interpreter()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
all_have = threading.Barrier({THREADS} + 1)
done = threading.Event()

def take():
    libc.malloc(5000)
    all_have.wait()
    done.wait()

threads = [threading.Thread(target=take) for _ in range({THREADS})]
for thread in threads:
    thread.start()
all_have.wait()
with tempfile.NamedTemporaryFile() as file:
    stream = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(file.read().decode().count("<heap nr="))
done.set()
"""


def arenas(**environ: str) -> int:
    outcome = subprocess.run(
        [sys.executable, "-c", COUNT_ARENAS],
        env={name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return int(outcome.stdout)


def test_threads_of_a_server_share_few_arenas() -> None:
    assert arenas() <= ARENAS


def test_a_number_from_the_environment_stays() -> None:
    assert arenas(MALLOC_ARENA_MAX=str(THREADS)) > ARENAS
    assert not limit_arenas({"MALLOC_ARENA_MAX": "8"})
    assert not limit_arenas({"GLIBC_TUNABLES": "glibc.malloc.arena_max=8"})
