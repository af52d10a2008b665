"""What protocols share, without a server around."""

import asyncio

import pytest

from asr.server import session
from asr.server.session import AgreedWords, Outbox
from asr.text.results import Partial, Word


def partial(text: str) -> Partial:
    return Partial(tuple(Word(word, i, i + 1, 0.9) for i, word in enumerate(text.split())), 0.0)


def test_words_are_sent_once_two_partials_agree_and_never_taken_back():
    agreed = AgreedWords()
    texts = ["the", "the cat", "the cat sat", "the cab sat on", "the cat sat on a", "the cat sat on a mat"]
    assert [agreed.update(partial(text)) for text in texts] == ["", "the", " cat", "", "", " sat on a"]


def test_an_outbox_writes_in_order_while_its_owner_goes_on():
    async def talk():
        written, gate = [], asyncio.Event()

        async def write(message):
            await gate.wait()
            written.append(message)

        outbox = Outbox(write)
        for number in range(5):
            outbox.post(number)
        waiting = asyncio.create_task(outbox.drained(2))
        await asyncio.sleep(0)
        assert not written and not waiting.done()
        gate.set()
        await waiting
        await outbox.close()
        return written

    assert asyncio.run(talk()) == [0, 1, 2, 3, 4]


def test_an_outbox_gives_up_on_a_client_that_does_not_read(monkeypatch):
    monkeypatch.setattr(session, "CLOSE_TIMEOUT_S", 0.01)

    async def talk():
        async def write(message):
            await asyncio.Event().wait()

        outbox = Outbox(write)
        outbox.post("text")
        with pytest.raises(asyncio.TimeoutError):
            await outbox.close()

    asyncio.run(talk())


def test_an_outbox_forgets_what_waits_for_a_client_that_has_gone():
    async def talk():
        async def write(message):
            raise ConnectionResetError

        outbox = Outbox(write)
        outbox.post("text")
        await outbox.drained(0)
        await outbox.close()

    asyncio.run(talk())
