"""Recordings that mean harm: real speech in many containers and codecs, damaged, with lies in headers; and bombs."""

from __future__ import annotations

import gzip
import io
import random
import struct
from collections.abc import Callable, Iterator
from functools import cache

import av
import numpy as np
import soundfile

from asr.audio.reading import read_blocks
from tests.conftest import CLIPS
from tests.support.recordings import encode, mp3, png, wav_bytes

SECONDS = 1.5
ENCODINGS = [  # container, codec, sample format, rate, channels, whether there is a film
    ("mp3", "libmp3lame", "fltp", 44_100, 2, False),
    ("mp4", "aac", "fltp", 48_000, 2, True),
    ("ipod", "aac", "fltp", 44_100, 1, False),
    ("ipod", "alac", "s16p", 44_100, 2, False),
    ("webm", "libopus", "flt", 48_000, 1, False),
    ("matroska", "libopus", "flt", 48_000, 2, True),
    ("matroska", "flac", "s16", 22_050, 1, False),
    ("ogg", "libopus", "s16", 48_000, 1, False),
    ("ogg", "flac", "s16", 16_000, 1, False),
    ("flac", "flac", "s16", 16_000, 1, False),
    ("mov", "pcm_s16le", "s16", 48_000, 1, True),
    ("avi", "libmp3lame", "fltp", 44_100, 2, True),
    ("adts", "aac", "fltp", 32_000, 1, False),
    ("mpegts", "mp2", "s16", 48_000, 2, False),
    ("amr", "libopencore_amrnb", "s16", 8_000, 1, False),
    ("asf", "wmav2", "fltp", 44_100, 1, False),
    ("aiff", "pcm_s16be", "s16", 44_100, 2, False),
    ("caf", "pcm_s16le", "s16", 44_100, 1, False),
    ("w64", "pcm_s16le", "s16", 16_000, 1, False),
    ("au", "pcm_mulaw", "s16", 8_000, 1, False),
    ("wav", "adpcm_ima_wav", "s16p", 22_050, 1, False),
    ("wav", "pcm_f32le", "flt", 16_000, 2, False),
    ("flv", "libmp3lame", "fltp", 44_100, 1, False),
    ("ac3", "ac3", "fltp", 48_000, 2, False),
]
LIES = [0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
HEADER_BYTES = 400  # where most of a file's promises stand
MAGICS = [b"RIFF", b"fLaC", b"OggS", b"ID3", b"\x1aE\xdf\xa3", b"\0\0\0\x20ftyp", b"FORM", b"caff", b"#!AMR\n", b".snd"]
PLAYLISTS = [
    b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n",
    b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    b"[playlist]\nFile1=http://127.0.0.1:9/\nNumberOfEntries=1\n",
    b'<?xml version="1.0"?><MPD><BaseURL>file:///etc/passwd</BaseURL></MPD>',
    b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    b"rtsp://127.0.0.1:9/\n",
]


@cache
def speech(rate: int) -> np.ndarray:
    """A second and a half that somebody says, at any rate."""
    samples = np.concatenate(list(read_blocks(CLIPS / "kathleen-0.flac")))[: round(SECONDS * 16_000)]
    places = np.arange(round(SECONDS * rate)) * 16_000 / rate
    return np.interp(places, np.arange(len(samples)), samples).astype(np.float32)


@cache
def whole(number: int) -> bytes:
    """A sound file in one of the `ENCODINGS`; the last is Ogg Vorbis."""
    file = io.BytesIO()
    if number == len(ENCODINGS):
        soundfile.write(file, speech(44_100), 44_100, format="OGG", subtype="VORBIS")
        return file.getvalue()
    container, codec, sample_format, rate, channels, film = ENCODINGS[number]
    bit_rate = {"libopencore_amrnb": 12_200, "wmav2": 64_000}.get(codec)
    encode(file, speech(rate), rate, codec, sample_format, channels, container, film, bit_rate=bit_rate)
    return file.getvalue()


def any_whole(chance: random.Random) -> bytes:
    return whole(chance.randrange(len(ENCODINGS) + 1))


# ---- damage: bytes of a sound file to others --------------------------------------------------------------------


def _place(data: bytes, chance: random.Random) -> int:
    return chance.randrange(min(len(data), HEADER_BYTES) if chance.random() < 0.6 else len(data))


def flip(data: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(2 ** chance.randrange(8)):
        damaged[_place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def lie(data: bytes, chance: random.Random) -> bytes:
    """A number of the header becomes an extreme one."""
    place, size = _place(data, chance), chance.choice([1, 2, 4, 8])
    value = (chance.choice(LIES) & (256**size - 1)).to_bytes(size, chance.choice(["little", "big"]))
    return data[:place] + value + data[place + size :]


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: _place(data, chance)]


def repeat(data: bytes, chance: random.Random) -> bytes:
    first, last = sorted((_place(data, chance), chance.randrange(len(data))))
    return data[:last] + data[first:last] * chance.choice([1, 1, 2, 20]) + data[last:]


def lose(data: bytes, chance: random.Random) -> bytes:
    place = _place(data, chance)
    return data[:place] + data[place + chance.randrange(1, 2000) :]


def insert(data: bytes, chance: random.Random) -> bytes:
    place = _place(data, chance)
    return data[:place] + chance.randbytes(chance.randrange(1, 500)) + data[place:]


def splice(data: bytes, chance: random.Random) -> bytes:
    """One file's beginning and another's end."""
    other = any_whole(chance)
    return data[: chance.randrange(len(data))] + other[chance.randrange(len(other)) :]


def disguise(data: bytes, chance: random.Random) -> bytes:
    return chance.choice(MAGICS) + data[chance.choice([0, 4, 8]) :]


DAMAGES: list[Callable[[bytes, random.Random], bytes]] = [flip, flip, lie, lie, cut, repeat, lose, insert, splice]


def damaged(chance: random.Random) -> tuple[str, bytes]:
    """A name that says what was done, and the file."""
    if chance.random() < 0.03:
        return "noise", chance.choice([b"", *MAGICS]) + chance.randbytes(chance.randrange(3000))
    data, names = any_whole(chance), []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        change = chance.choice([*DAMAGES, disguise])
        names.append(change.__name__)
        data = change(data, chance) or b"\0"
    return "-".join(names), data


# ---- bombs: small files that ask for much -------------------------------------------------------------------------


def _silence_flac(seconds: int) -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 16_000, 1, format="FLAC", subtype="PCM_16") as flac:
        for _ in range(seconds // 60):
            flac.write(np.zeros(60 * 16_000, np.int16))
    return file.getvalue()


def _many_tracks(count: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        tracks = [out.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in range(count)]
        for track in tracks:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 160), np.int16), format="s16", layout="mono")
            frame.sample_rate = 16_000
            out.mux(track.encode(frame))
    return file.getvalue()


def _boxes(depth: int) -> bytes:
    """MP4 boxes, each in the one before."""
    data = b""
    for _ in range(depth):
        data = struct.pack(">I", len(data) + 8) + b"moov" + data
    return b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + data


def _wide_wav(channels: int) -> bytes:
    form = struct.pack("<IHHIIHH", 16, 1, channels, 16_000, 32_000 * channels, 2 * channels & 0xFFFF, 16)
    return b"RIFF\xff\xff\xff\xffWAVEfmt " + form + b"data\xff\xff\xff\xff" + bytes(200_000)


def bombs() -> Iterator[tuple[str, bytes]]:
    yield "cover of 16 000 squared pixels", mp3(png(16_000))
    yield "an hour of silence", _silence_flac(3600)
    yield "400 tracks", _many_tracks(400)
    yield "boxes in boxes", _boxes(3000)
    yield "65 535 channels", _wide_wav(65_535)
    yield "64 channels", _wide_wav(64)
    for rate in (1, 999, 1_000, 768_001, 0x7FFFFFFF):
        yield f"{rate} Hz", wav_bytes(np.zeros(40_000), rate)
    for claimed in (0, 0x7FFFFFFF, 0xFFFFFFFF):
        yield f"{claimed} bytes claimed", wav_bytes(speech(16_000), 16_000, claimed)
    yield "a tag of 256 MB", b"ID3\x03\0\0\x7f\x7f\x7f\x7f" + whole(0)
    yield "100 MB of zeros in a gzip file", gzip.compress(bytes(100 << 20), 1)
    yield "a comment of 4 GB", whole(len(ENCODINGS))[:60] + b"\x03vorbis" + b"\xff" * 4 + bytes(500)
    yield "nothing", b""
    for number, text in enumerate(PLAYLISTS):
        yield f"playlist {number}", text
