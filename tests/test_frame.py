"""JPEG 2000 is decoded by all cores, one image of a process at a time, whoever asks and when."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import exams
import imagecodecs
import numpy as np
import pytest
from exams import VARIANTS
from pydicom.uid import JPEG2000, HTJ2KLossless, JPEG2000Lossless

from mammoclip_sdk import pixels
from mammoclip_sdk.errors import PixelError
from mammoclip_sdk.exam import SourceImage, View
from mammoclip_sdk.pixels import frame
from mammoclip_sdk.processor import cores
from training.encodings import encode

ROW = {variant.name: variant for variant in VARIANTS}


@pytest.fixture
def image() -> SourceImage:
    dataset = exams.dataset(View.LCC, ROW["jpeg-2000-lossless"])
    return SourceImage(view=View.LCC, name="x", dataset=dataset)


def test_one_image_at_a_time_however_many_are_asked_for(monkeypatch, image):
    running, most, threads = [], [], set()
    decode = imagecodecs.jpeg2k_decode

    def watched(data, *, numthreads):
        running.append(numthreads)
        most.append(len(running))
        threads.add(threading.get_ident())
        time.sleep(0.01)
        running.pop()
        return decode(data, numthreads=numthreads)

    monkeypatch.setattr(frame.imagecodecs, "jpeg2k_decode", watched)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: pixels.decode(image).pixels, range(4)))
    assert most == [1] * 4
    assert len(threads) == 1  # whose memory the next image is given
    assert all(
        np.array_equal(each, exams.codes(View.LCC, ROW["jpeg-2000-lossless"])) for each in found
    )


@pytest.mark.parametrize(("available", "used"), [(1, 1), (2, 2), (64, 4)])
def test_as_many_threads_as_there_are_cores_up_to_four(monkeypatch, image, available, used):
    asked = []

    def noted(data, *, numthreads):
        asked.append(numthreads)
        return imagecodecs.jpeg8_decode(b"")  # any error ends it

    monkeypatch.setattr(frame, "cores", lambda: available)
    monkeypatch.setattr(frame.imagecodecs, "jpeg2k_decode", noted)
    with pytest.raises(PixelError):
        pixels.decode(image)
    assert asked == [used]


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEG2000, HTJ2KLossless])
def test_the_number_of_threads_changes_no_pixel(monkeypatch, syntax):
    encoded = encode(exams.dataset(View.LCC, ROW["explicit-le"]), syntax)
    source = SourceImage(view=View.LCC, name="x", dataset=encoded)
    found = []
    for count in (1, 2, 4):
        monkeypatch.setattr(frame, "cores", lambda count=count: count)
        found.append(pixels.decode(source).pixels)
    assert all(np.array_equal(each, found[0]) for each in found)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_decodes_as_well(image):
    expected = pixels.decode(image).sha256  # the parent's decoder has begun
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writes, pixels.decode(image).sha256.encode())
        finally:
            os._exit(0)
    os.close(writes)
    deadline = threading.Timer(30, os.kill, (child, 9))
    deadline.start()
    with os.fdopen(reads, "rb") as answer:
        said = answer.read().decode()
    deadline.cancel()
    os.waitpid(child, 0)
    assert said == expected


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no such limit here")
def test_cores_are_those_that_this_process_may_use():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert cores() == len(before)
