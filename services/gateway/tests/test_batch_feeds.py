from __future__ import annotations

import anyio
import pytest

from pharos_gateway.batch_feeds import BatchFeed
from pharos_gateway.feeds import TOO_SLOW, FeedClosed
from pharos_gateway.sight import Sight

pytestmark = pytest.mark.anyio


def feed(unsent_max: int = 100) -> BatchFeed:
    return BatchFeed(Sight(tenant="t"), None, unsent_max=unsent_max)


async def everything(of: BatchFeed) -> list[bytes]:
    """What is unread."""
    read: list[bytes] = []
    with anyio.move_on_after(0.02):
        while True:
            read.append(await of.next())
    return read


async def test_of_each_file_a_slow_reader_is_sent_the_latest() -> None:
    unread = feed()
    for step in (b"a1", b"a2", b"a3"):
        unread.tell_file("j", 0, step)
    unread.tell_file("j", 1, b"b1")
    assert await everything(unread) == [b"a3", b"b1"]


async def test_what_is_told_of_a_batch_counts_the_files_before_it_and_no_others() -> None:
    """It is not changed while it waits; what came after it follows once it was sent, at the end."""
    unread = feed()
    unread.tell_file("j", 0, b"file 0")
    unread.tell_counters("j", b"one file")
    unread.tell_file("j", 1, b"file 1")
    unread.tell_counters("j", b"two files")
    unread.tell_file("j", 2, b"file 2")
    unread.tell_counters("j", b"three files")
    assert await everything(unread) == [b"file 0", b"one file", b"file 1", b"file 2", b"three files"]


async def test_a_reader_that_leaves_too_much_unread_is_sent_away() -> None:
    unread = feed(unsent_max=3)
    for item in range(4):
        unread.tell_file("j", item, b"x")
    unread.tell_counters("j", b"y")
    with pytest.raises(FeedClosed) as closed:
        await unread.next()
    assert (closed.value.code, closed.value.reason) == TOO_SLOW


async def test_a_reader_that_leaves_too_many_bytes_unread_is_sent_away() -> None:
    """The name of a file may be long, and a batch has thousands of them."""
    unread = BatchFeed(Sight(tenant="t"), None, unsent_bytes_max=100)
    for _ in range(10):  # what is replaced, and what was read, counts no more
        for item in range(4):
            unread.tell_file("j", item, b"x" * 20)
        unread.tell_counters("j", b"y" * 10)
        unread.tell_counters("j", b"z" * 10)
        assert len(await everything(unread)) == 6
    for item in range(6):
        unread.tell_file("j", item, b"x" * 20)
    with pytest.raises(FeedClosed) as closed:
        await unread.next()
    assert (closed.value.code, closed.value.reason) == TOO_SLOW


async def test_each_state_of_a_batch_is_told_in_its_place() -> None:
    unread = feed()
    unread.tell_counters("j", b"one file")
    unread.tell_file("j", 1, b"file 1")
    unread.tell_counters("j", b"two files")
    unread.tell_state("j", b"completed")
    unread.tell_state("j", b"retrying")
    unread.tell_file("j", 1, b"file 1 again")
    unread.tell_counters("j", b"two files again")
    assert await everything(unread) == [
        b"one file",
        b"completed",
        b"retrying",
        b"file 1 again",
        b"two files again",
    ]
