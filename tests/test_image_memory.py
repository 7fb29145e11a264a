"""Memory that is used again never shows one image in the place of another."""

from __future__ import annotations

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mammoclip_sdk._native import image_memory, release_idle_memory

MIB = 2**20

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="kept for reuse on Linux alone")


@pytest.fixture(autouse=True)
def nothing_idle():
    gc.collect()
    release_idle_memory()
    yield
    release_idle_memory()


def address(array: NDArray[np.uint8]) -> int:
    return array.__array_interface__["data"][0]


def mapped(place: int) -> bool:
    """Whether this process still has memory there."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = (line.split()[0].split("-") for line in lines)
    return any(int(first, 16) <= place < int(end, 16) for first, end in ranges)


@pytest.mark.parametrize("size", [0, 1, 4096, 2 * MIB - 1, 2 * MIB, 5 * MIB + 3])
def test_it_is_as_long_as_asked_for_and_can_be_written(size):
    memory = image_memory(size)
    assert (memory.shape, memory.dtype) == ((size,), np.uint8)
    assert memory.flags.c_contiguous
    memory[:] = 7
    assert memory.sum(dtype=np.int64) == 7 * size


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(2 * MIB, 7 * MIB), st.integers(0, 5)), min_size=2, max_size=12)
)
def test_what_is_held_is_never_handed_out_again(steps):
    held: dict[int, tuple[NDArray[np.uint8], int]] = {}
    for number, (size, place) in enumerate(steps):
        memory = image_memory(size)
        memory[:] = number
        held[place] = memory[size // 2 :], number  # part of it keeps all of it
        del memory
        for kept, value in held.values():
            assert np.all(kept == value)


@on_linux
def test_it_is_used_again_once_nobody_looks_at_it():
    memory = image_memory(8 * MIB)
    place = address(memory)
    view = memoryview(memory)[5:6].toreadonly()
    del memory
    assert address(image_memory(8 * MIB)) != place
    view.release()
    assert address(image_memory(8 * MIB)) == place


@on_linux
def test_a_block_of_twice_the_size_is_not_spent_on_a_small_image():
    memory = image_memory(20 * MIB)
    place = address(memory)
    del memory
    assert address(image_memory(4 * MIB)) != place
    assert address(image_memory(12 * MIB)) == place


@on_linux
def test_what_lies_idle_is_bounded_and_is_given_back_when_asked():
    blocks = [image_memory(32 * MIB) for _ in range(6)]
    places = [address(block) + 16 * MIB for block in blocks]
    assert all(mapped(place) for place in places)
    while blocks:
        blocks.pop(0)
    assert [mapped(place) for place in places] == [False, False, True, True, True, True]
    release_idle_memory()
    assert not any(mapped(place) for place in places)


@on_linux
def test_a_block_larger_than_all_that_may_lie_idle_is_not_kept():
    memory = image_memory(130 * MIB)
    place = address(memory) + 65 * MIB
    del memory
    assert not mapped(place)


def test_threads_do_not_see_each_others_images():
    def write_and_read(number: int) -> bool:
        memory = image_memory(2 * MIB + number * 4096)
        memory[:] = number
        return bool(np.all(memory == number))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write_and_read, range(200)))
