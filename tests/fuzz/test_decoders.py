"""Any bytes, to everything that reads bytes: typed errors only, in bounded time and memory (SAFETY 48)."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from mutate import mutated
from running import MEMORY_BYTES, attempt, corpus, memory_of
from targets import TARGETS, clean_up

SECONDS = 0.4
SEED = 20


@pytest.fixture(autouse=True, scope="module")
def _no_files_stay() -> Iterator[None]:
    yield
    clean_up()


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_valid_is_taken_as_it_is(name: str) -> None:
    for example in TARGETS[name].examples:
        assert attempt(name, example) is None
        assert memory_of(name, example) < MEMORY_BYTES


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_once_is_refused_with_a_typed_error(name: str) -> None:
    for file in corpus(name):
        data = file.read_bytes()
        assert attempt(name, data) is None, file.name
        assert memory_of(name, data) < MEMORY_BYTES, file.name


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_of_what_is_valid_end_in_typed_errors_and_take_bounded_memory(name: str) -> None:
    draw = random.Random(f"{SEED}/{name}")
    examples = [*TARGETS[name].examples, *(file.read_bytes() for file in corpus(name))]
    began = time.process_time()
    count = 0
    while time.process_time() - began < SECONDS:
        data = mutated(draw, examples)
        found = attempt(name, data)
        assert found is None, f"{found}: {data[:2000]!r}: python tests/fuzz/run.py keeps such in tests/fuzz/corpus"
        if count % 50 == 0:
            assert memory_of(name, data) < MEMORY_BYTES, data[:2000]
        count += 1
    assert count >= 20


def test_the_corpus_is_of_targets_that_there_are() -> None:
    from running import CORPUS

    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= set(TARGETS)
