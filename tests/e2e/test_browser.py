"""The browser demo in a real browser (Chromium, driven by Playwright) whose microphone plays a real clip."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from difflib import SequenceMatcher
from pathlib import Path
from urllib.parse import urlsplit

import av
import numpy as np
import pytest
import soundfile as sf

import asr
from asr.demo import hosting as demo
from tests.support.serving import free_port, running

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt install chromium")]

CLIPS = Path(__file__).parents[1] / "clips"
ONE, OTHER = "kathleen-1", "ljspeech-1"
SILENCE = 2.0  # seconds after the words, for the endpoint
ELSEWHERE = "rill.test"  # a name that is not localhost, for the browser
IDLE = "!rillLive.recording"
PAST_THE_CLIP = "rillLive.recording.captured > {}"
Open = Callable[..., "playwright.Page"]


@pytest.fixture(scope="module")
def recognizer() -> asr.Recognizer:
    """Raw words: how they are written depends on those before, which differ between a page and a file."""
    return asr.load(device="cpu", punctuate=False)


@pytest.fixture(scope="module")
def address(recognizer: asr.Recognizer) -> Iterator[str]:
    from asr.demo import hosting

    port = free_port()
    page = hosting.serve(recognizer, "127.0.0.1", port)
    yield f"http://127.0.0.1:{port}"
    page.close()


def microphone(tmp_path: Path, name: str) -> Path:
    samples, rate = sf.read(CLIPS / f"{name}.flac", dtype="float32")
    path = tmp_path / f"{name}.wav"
    sound = np.concatenate([np.zeros(rate // 2), samples, np.zeros(int(SILENCE * rate))])
    sf.write(path, sound, rate, subtype="PCM_16")
    return path


@pytest.fixture
def browse(address: str, tmp_path: Path) -> Iterator[Open]:
    """Opens the page in a browser that hears a clip; without one, in a browser that refuses the microphone.

    Whatever it does there, it asks no other computer for anything, and nothing that it asks for is missing.
    """
    asked: set[str | None] = set()  # hosts; none of what is inside the page
    said: list[str] = []  # in the browser's console

    with playwright.sync_playwright() as driver, ExitStack() as browsers:

        @contextmanager
        def chromium(*options: str) -> Iterator[playwright.Browser]:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *options])
            yield browser
            browser.close()

        def open_page(clip: str | None = None, at: str = address, ready: str = "#live-mic") -> playwright.Page:
            options = ["--use-fake-device-for-media-stream", f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1"]
            if clip:
                options += [
                    "--use-fake-ui-for-media-stream",
                    f"--use-file-for-fake-audio-capture={microphone(tmp_path, clip)}%noloop",
                ]
            page = browsers.enter_context(chromium(*options)).new_page()
            page.on("request", lambda request: asked.add(urlsplit(request.url).hostname))
            page.on("console", lambda message: said.append(message.text))
            page.goto(at)
            page.wait_for_selector(ready)
            return page

        yield open_page
    assert asked <= {"127.0.0.1", ELSEWHERE, None}
    assert not [line for line in said if "Failed to load" in line]


def alike(text: str, other: str) -> float:
    return SequenceMatcher(None, text.split(), other.split()).ratio()


def offline(recognizer: asr.Recognizer, clip: str) -> str:
    return recognizer.transcribe(CLIPS / f"{clip}.flac").text


def text(page: playwright.Page) -> str:
    return " ".join(page.locator("#live-finals p").all_inner_texts())


def seconds_of(clip: str) -> float:
    return sf.info(CLIPS / f"{clip}.flac").duration + 0.5


def test_words_appear_while_they_are_spoken(browse, recognizer):
    page, errors = browse(ONE), []
    page.on("pageerror", lambda error: errors.append(error))
    page.click("#live-mic")
    page.wait_for_function("document.querySelectorAll('#live-partial .word').length >= 2", timeout=20_000)
    assert page.evaluate("rillLive.recording.captured") < seconds_of(ONE) - 1
    dim, firm = (
        page.locator(f"#live-{name}").evaluate("e => Number(getComputedStyle(e).opacity)")
        for name in ("partial .word:not(.firm) >> nth=-1", "finals")
    )
    assert dim < 0.7 < firm
    page.wait_for_selector("#live-finals li", timeout=20_000)  # the endpoint, nobody pressed Stop
    assert alike(text(page), offline(recognizer, ONE)) >= 0.8
    assert all(figure.endswith(" s") for figure in page.locator(".figures dd").all_inner_texts())
    page.click("#live-caption")
    assert page.locator("#caption-firm").inner_text() == text(page)
    page.keyboard.press("Escape")
    assert page.locator("#caption-view").is_hidden()
    assert errors == []


def test_a_second_recording_and_clear(browse, recognizer):
    page = browse(ONE)
    for count in (1, 2):
        page.click("#live-mic")
        page.wait_for_function(PAST_THE_CLIP.format(seconds_of(ONE)), timeout=30_000)
        page.click("#live-mic")  # the last words are flushed
        page.wait_for_function(IDLE, timeout=20_000)
        assert alike(text(page), " ".join([offline(recognizer, ONE)] * count)) >= 0.8
    assert page.evaluate("rillLive.offset") == pytest.approx(2 * seconds_of(ONE), abs=2)  # none of the time in between
    starts = page.evaluate("rillLive.segments.map(segment => segment.start)")
    assert starts == sorted(starts) and starts[-1] > seconds_of(ONE)  # one transcript, one timeline
    page.click("#live-clear")
    page.click("#live-clear")
    assert text(page) == "" and page.locator("#live-empty").is_visible()


def test_an_example_and_the_keyboard(browse):
    page = browse()  # that refuses the microphone
    page.click("#live-example")
    page.wait_for_selector("#live-partial .firm", timeout=60_000)
    page.wait_for_selector("#live-finals li", timeout=60_000)
    page.focus("#live-hotwords")
    page.keyboard.press("Space")  # is text there
    assert page.evaluate("!!rillLive.recording") and page.input_value("#live-hotwords") == " "
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    page.wait_for_function(IDLE, timeout=20_000)
    assert "night" in text(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#live-copy")
    page.wait_for_selector("#live-copy:has-text('Copied')")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.split() == text(page).split()


def test_microphones_can_be_chosen(browse, recognizer):
    page = browse(ONE)
    page.wait_for_selector("#live-source [data-microphone]", state="attached")
    name = page.locator("#live-source [data-microphone]").first.inner_text()
    page.select_option("#live-source", label=name)
    page.click("#live-mic")
    page.wait_for_selector("#live-finals li", timeout=30_000)
    assert page.evaluate("rillLive.recording.media.getAudioTracks()[0].label") == name
    assert alike(text(page), offline(recognizer, ONE)) >= 0.8


def test_the_sound_of_a_tab_is_recognized(browse):
    page = browse(ONE)
    page.evaluate("""() => {  // what a visitor's choice gives: the sound of a tab, and its picture
        navigator.mediaDevices.getDisplayMedia = async options => {
            window.asked = options;
            const sound = await navigator.mediaDevices.getUserMedia({audio: true});
            const picture = document.createElement("canvas").captureStream();
            return new MediaStream([...sound.getTracks(), ...picture.getTracks()]);
        };
    }""")
    page.select_option("#live-source", "tab")
    page.click("#live-mic")
    page.wait_for_selector("#live-finals li", timeout=30_000)
    assert page.evaluate("asked.video && asked.audio && asked.systemAudio") == "include"
    page.evaluate("rillLive.recording.media.getAudioTracks()[0].dispatchEvent(new Event('ended'))")  # sharing ends
    page.wait_for_function(IDLE, timeout=20_000)
    assert text(page)


def test_a_tab_without_sound_is_said(browse):
    page = browse(ONE)
    page.evaluate(
        "navigator.mediaDevices.getDisplayMedia = async () => document.createElement('canvas').captureStream()"
    )
    page.select_option("#live-source", "tab")
    page.click("#live-mic")
    page.wait_for_selector("#live-notice:has-text('gave no sound')")
    assert page.evaluate(IDLE)


def test_downloads_of_a_live_transcript(browse):
    page = browse(OTHER)
    page.click("#live-mic")
    page.wait_for_function(PAST_THE_CLIP.format(seconds_of(OTHER)), timeout=30_000)
    page.click("#live-mic")
    page.wait_for_function(IDLE, timeout=20_000)
    files = {}
    for format in ("txt", "srt", "vtt", "json"):
        with page.expect_download() as download:
            page.click(f"#live-downloads [data-format={format}]")
        assert download.value.suggested_filename == f"transcript.{format}"
        files[format] = Path(download.value.path()).read_text()
    words = text(page).split()
    assert files["txt"].split() == words
    assert files["srt"].startswith("1\n00:00:0") and files["vtt"].startswith("WEBVTT\n\n00:0")
    assert [word["word"] for segment in json.loads(files["json"])["segments"] for word in segment["words"]] == words


def test_two_pages_at_once_do_not_mix(browse, recognizer):
    pages = {clip: browse(clip) for clip in (ONE, OTHER)}
    for page in pages.values():
        page.click("#live-mic")
    for clip, page in pages.items():
        page.wait_for_function(PAST_THE_CLIP.format(seconds_of(clip)), timeout=30_000)
        page.click("#live-mic")
    for clip, page in pages.items():
        page.wait_for_function(IDLE, timeout=20_000)
        assert alike(text(page), offline(recognizer, clip)) >= 0.7


def test_a_refused_microphone_is_said(browse):
    page = browse()
    page.click("#live-mic")
    page.wait_for_selector("#live-notice:has-text('microphone is blocked')")
    assert page.locator("#live-mic").inner_text() == "Start listening"


def test_a_page_without_https_says_so(browse, address):
    page = browse(at=address.replace("127.0.0.1", ELSEWHERE))
    page.wait_for_selector("#live-notice:has-text('only over https or on localhost')")
    page.click("#live-mic")
    assert page.locator("#live-mic").inner_text() == "Start listening"


def video(path: Path, clip: str) -> None:
    samples, rate = sf.read(CLIPS / f"{clip}.flac", dtype="float32")
    with av.open(str(path), "w") as file:
        picture, sound = file.add_stream("h264", rate=10), file.add_stream("aac", rate=rate)
        picture.width, picture.height, picture.pix_fmt, sound.layout = 160, 90, "yuv420p", "mono"
        for _ in range(int(10 * len(samples) / rate)):
            file.mux(picture.encode(av.VideoFrame.from_ndarray(np.full((90, 160, 3), 60, np.uint8), format="rgb24")))
        file.mux(picture.encode())
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        file.mux(sound.encode(frame))
        file.mux(sound.encode())


def test_a_video_is_transcribed_and_plays_with_its_subtitles(browse, recognizer, tmp_path):
    video(tmp_path / "talk.mp4", ONE)
    page = browse()
    page.click("button[role=tab]:has-text('File')")
    page.set_input_files("#file-upload input[type=file]", tmp_path / "talk.mp4")
    page.wait_for_selector(".file-result video", timeout=60_000)
    words = page.locator(".player-text .word").all_inner_texts()
    assert words == [word.text for word in recognizer.transcribe(tmp_path / "talk.mp4").words]
    page.wait_for_function("document.querySelector('.file-result video').duration > 3")
    page.evaluate("document.querySelector('.file-result video').muted = true")
    page.locator(".player-text .word").nth(3).click()  # plays from there
    page.wait_for_selector(".player-text .word.now")
    page.wait_for_function("document.querySelector('.file-result video').textTracks[0].activeCues.length > 0")
    with page.expect_download() as download:
        page.click("#file-srt")
    assert download.value.suggested_filename == "talk.srt"
    assert Path(download.value.path()).read_text().startswith("1\n00:00:0")


def test_a_recording_in_the_file_tab(browse, recognizer):
    page = browse(ONE)
    page.click("button[role=tab]:has-text('File')")
    page.click("#file-record button:has-text('Record')")
    page.wait_for_timeout(1000 * (seconds_of(ONE) + 1))  # while the clip plays
    page.click("#file-record button:has-text('Stop')")
    page.wait_for_selector(".file-result .player-text .word", timeout=60_000)
    words = " ".join(page.locator(".player-text .word").all_inner_texts())
    assert alike(words, offline(recognizer, ONE)) > 0.7


def test_several_recordings_at_once(browse, recognizer):
    page = browse()
    page.click("button[role=tab]:has-text('File')")
    page.set_input_files("#file-upload input[type=file]", [CLIPS / f"{clip}.flac" for clip in (ONE, OTHER)])
    page.wait_for_function("document.querySelectorAll('.file-result video').length == 2", timeout=60_000)
    assert page.locator(".file-result h3").all_inner_texts() == [f"{ONE}.flac", f"{OTHER}.flac"]
    with page.expect_download() as download:
        page.click("#file-vtt")
    assert download.value.suggested_filename == "transcripts-vtt.zip"


def test_inside_the_network_is_drawn(browse):
    page = browse()
    page.click("button[role=tab]:has-text('Inside')")
    page.set_input_files("#inside-audio input[type=file]", CLIPS / "kathleen-2.flac")
    page.wait_for_selector(".inside svg", timeout=180_000)
    assert page.locator(".inside .words span", has_text="noticed").count() == 2
    assert page.locator(".inside tbody tr").count() >= 4  # hypotheses
    page.click("#inside-layer label:has-text('Layer 1')")
    page.wait_for_selector(".inside h4:has-text('layer 1')", timeout=180_000)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390  # time scrolls inside, not the page


def test_the_servers_pages_are_drawn(browse, recognizer):
    with running(recognizer, mount_demo=demo.mount) as server:
        assert browse(at=server.url("/demo")).title().startswith("Rill")
        page = browse(at=server.url("/docs"), ready=".opblock")
        assert page.locator(".opblock").count() == 5
        assert "Vosk's WebSocket protocol" in page.inner_text(".information-container")
