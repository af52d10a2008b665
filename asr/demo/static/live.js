// The live page: a microphone, a tab or a recording → worklet → socket; events → text. The whole transcript is kept here, in `page`, so that a
// lost connection or a second recording loses nothing.
(() => {
const BLOCK_SECONDS = 0.1;
const MEDIAN_OF = 50;          // so many latest words count in a median delay
const CAPTION_WORDS = 22;      // of firm text,
const CAPTION_UTTERANCES = 3;  // of at most so many utterances
const COPIED_MS = 1500;
const page = {segments: [], partial: null, offset: 0, recording: null, captured: 0, wordDelays: [], finalDelays: [],
  shown: []};
const $ = id => document.getElementById(id);
window.rillLive = page;        // for the console, and for the tests

const TAP = `registerProcessor("tap", class extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(Math.round(sampleRate * ${BLOCK_SECONDS}));
    this.count = 0;
    this.port.onmessage = () => { this.send(); this.port.postMessage(null); };
  }
  send() { this.port.postMessage(this.block.slice(0, this.count)); this.count = 0; }
  process([input]) {
    for (const x of input[0] || []) {
      this.block[this.count++] = Math.max(-1, Math.min(1, x)) * 32767;
      if (this.count === this.block.length) this.send();
    }
    return true;
  }
});`;

const MICROPHONE = {
  NotAllowedError: "The microphone is blocked for this page: allow it in the browser's address bar, then press Start again.",
  NotFoundError: "No microphone was found: connect one, then press Start again.",
  OverconstrainedError: "That microphone is gone: choose another one, then press Start again.",
  NotReadableError: "The microphone is in use by another program: close it there, then press Start again.",
};
const TAB = {
  NotAllowedError: "Nothing was shared: press Start again and choose a tab, or a screen with its sound.",
  NotFoundError: "What you shared gave no sound: press Start again, choose a tab, and switch its sound on in the same window.",
};

// Each opens one kind of source: the node that sounds, with the `media` to be stopped, and who ends it.
const SOURCES = {
  async tab(recording) {
    if (!navigator.mediaDevices.getDisplayMedia) throw new Error("this browser cannot share the sound of a tab");
    recording.media = await navigator.mediaDevices.getDisplayMedia({
      video: true, audio: {echoCancellation: false, noiseSuppression: false, autoGainControl: false}, systemAudio: "include"});
    if (!recording.media.getAudioTracks().length) throw new DOMException("", "NotFoundError");
    recording.media.getVideoTracks().forEach(track => track.enabled = false);
    return recording.context.createMediaStreamSource(new MediaStream(recording.media.getAudioTracks()));
  },
  async example(recording) {
    const answer = await fetch(new URL("example.flac", location.href));
    if (!answer.ok) throw new Error("the server does not have it");
    const node = recording.context.createBufferSource();
    node.buffer = await recording.context.decodeAudioData(await answer.arrayBuffer());
    node.connect(recording.context.destination);  // to be heard, too
    node.onended = () => { if (page.recording === recording) stop(); };
    recording.play = () => node.start();
    return node;
  },
  async microphone(recording, id) {
    recording.media = await navigator.mediaDevices.getUserMedia({audio: {channelCount: 1, ...(id && {deviceId: {exact: id}})}});
    listMicrophones();
    return recording.context.createMediaStreamSource(recording.media);
  },
};

async function listMicrophones() {  // browsers say their names once one was allowed
  const devices = await navigator.mediaDevices?.enumerateDevices() || [];
  const select = $("live-source"), chosen = select.value;
  select.querySelectorAll("[data-microphone]").forEach(option => option.remove());
  const known = devices.filter(device => device.kind === "audioinput" && device.label && !["default", "communications"].includes(device.deviceId));
  select.options[0].after(...known.map(device => {
    const option = new Option(device.label, device.deviceId);
    option.dataset.microphone = "";
    return option;
  }));
  select.value = chosen;
  if (select.selectedIndex < 0) select.value = "";
}

function notice(text) { const box = $("live-notice"); box.textContent = text || ""; box.hidden = !text; }
const settings = () => ({
  latency: document.querySelector("#live-latency input:checked").value,
  hotwords: $("live-hotwords").value.split(",").map(word => word.trim()).filter(Boolean),
});

async function start() {
  notice("");
  const chosen = $("live-source").value, kind = chosen in SOURCES ? chosen : "microphone";
  if (!navigator.mediaDevices && kind !== "example") return notice(insecure());
  const recording = page.recording = {waiting: [], captured: 0, heard: 0, lag: 0, offset: page.offset, stopping: false};
  page.wordDelays = []; page.finalDelays = []; page.shown = [];
  paintButton();
  let source;
  try {
    // Where nothing is played, no output device: opening one would hold up the first words.
    recording.context = new AudioContext(kind === "example" ? {} : {sinkId: {type: "none"}});
    await recording.context.audioWorklet.addModule(URL.createObjectURL(new Blob([TAP], {type: "text/javascript"})));
    source = await SOURCES[kind](recording, chosen);
  } catch (error) {
    release(recording);
    const known = {microphone: MICROPHONE, tab: TAB, example: {}}[kind][error.name];
    return notice(known || `This ${{tab: "sound", example: "recording"}[kind] || kind} cannot be opened: ${error.message}.`);
  }
  if (recording.stopping) return release(recording);  // pressed again while the browser asked for permission
  const tap = recording.tap = new AudioWorkletNode(recording.context, "tap", {numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit"});
  tap.port.onmessage = ({data}) => {
    if (data) return capture(recording, data);
    tap.port.onmessage = null;  // the context still runs, on silence, until the last final has come
    send(recording, JSON.stringify({finish: true}));
  };
  source.connect(tap);
  const track = recording.media?.getAudioTracks()[0];
  if (track) track.onended = () => {
    if (!recording.stopping && kind === "microphone") notice("The microphone was disconnected: the text is kept.");
    stop();
  };
  const address = new URL("live", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = recording.socket = new WebSocket(address);
  socket.onopen = () => {
    socket.send(JSON.stringify({rate: recording.context.sampleRate, ...settings()}));
    recording.waiting.splice(0).forEach(message => socket.send(message));
    recording.play?.();
  };
  socket.onmessage = ({data}) => receive(recording, JSON.parse(data));
  socket.onclose = () => {
    if (!recording.ended && !recording.failed) notice("The connection to the server was lost: the text is kept. Press Start to continue.");
    release(recording);
  };
}

function send(recording, message) {
  if (recording.socket.readyState === WebSocket.OPEN) recording.socket.send(message);
  else if (recording.socket.readyState === WebSocket.CONNECTING) recording.waiting.push(message);
}

function capture(recording, block) {
  recording.captured += block.length / recording.context.sampleRate;
  page.offset = recording.offset + recording.captured;
  let peak = 0;
  for (const x of block) peak = Math.max(peak, Math.abs(x));
  send(recording, block.buffer);
  $("live-level").style.width = `${Math.max(0, Math.min(100, 100 + 20 * Math.log10(peak / 32767 + 1e-6) * 1.6))}%`;
  $("live-clock").textContent = clock(page.offset);
}

function stop() {  // may be called at any time, and again
  const recording = page.recording;
  if (!recording || recording.stopping) return;
  recording.stopping = true;
  paintButton();
  if (!recording.socket) return release(recording);
  recording.media?.getTracks().forEach(track => track.stop());
  recording.tap.port.postMessage("flush");  // the last part of a block, then "finish"
}

function release(recording) {
  recording.media?.getTracks().forEach(track => track.stop());
  if (recording.context?.state !== "closed") recording.context?.close();
  if (recording.socket?.readyState === WebSocket.OPEN) recording.socket.close();
  if (page.recording !== recording) return;
  if (page.partial) { page.partial = null; paintText(); }
  page.recording = null;
  $("live-level").style.width = 0;
  paintButton();
}

function receive(recording, message) {
  if (recording !== page.recording) return;
  if (message.type === "error") { notice(message.message); recording.failed = true; }
  else if (message.type === "end") recording.ended = true;
  else if (message.type === "stats") paintStats(recording, message);
  else {
    const move = item => ({...item, start: item.start + recording.offset, end: item.end + recording.offset});
    const event = {...move(message), words: message.words.map(move)};
    measure(event);
    if (event.type === "final") { page.segments.push(event); page.partial = null; }
    else page.partial = event;
    paintText();
  }
}

// From the end of each final word to its first appearance, in whatever partial. Words that no partial had right count
// from the final text.
function measure(event) {
  if (page.recording.stopping) return;
  if (event.type === "partial") {
    const fresh = event.words.filter(word => !page.shown.some(old => same(old, word)));
    page.shown.push(...fresh.map(word => ({...word, at: page.offset})));
    return;
  }
  for (const word of event.words) page.wordDelays.push((page.shown.find(old => same(old, word)) || {at: page.offset}).at - word.end);
  page.finalDelays.push(page.offset - event.end);
  page.shown = [];
  const median = list => seconds(Math.max(0, list.slice(-MEDIAN_OF).sort((a, b) => a - b)[Math.min(list.length, MEDIAN_OF) >> 1]));
  $("live-shown").textContent = median(page.wordDelays);
  $("live-final").textContent = median(page.finalDelays);
}

const same = (a, b) => a.word === b.word && Math.abs(a.start - b.start) < 0.5;
const seconds = value => `${value.toFixed(2)} s`;
const clock = value => `${Math.floor(value / 60)}:${String(Math.floor(value % 60)).padStart(2, "0")}`;

function paintStats(recording, stats) {
  if (!recording.stopping) $("live-lag").textContent = seconds(Math.max(0, recording.captured - stats.heard) + stats.lag);
  $("live-worst").textContent = seconds(stats.worst);
  $("live-lag").parentNode.classList.toggle("behind", stats.behind);
  if (stats.dropped) notice(`The computer is too slow: ${stats.dropped.toFixed(1)} s of audio were left out.`);
}

function paintButton() {
  const recording = page.recording, button = $("live-mic");
  button.setAttribute("aria-pressed", String(!!recording && !recording.stopping));
  button.querySelector("span").textContent = !recording ? "Start listening" : recording.stopping ? "Finishing…" : "Stop";
  $("live").classList.toggle("listening", !!recording && !recording.stopping);
}

function wordSpan(word) {
  const span = document.createElement("span");
  span.className = "word";
  span.style.setProperty("--doubt", (1 - word.confidence).toFixed(2));
  span.title = `${word.start.toFixed(2)}–${word.end.toFixed(2)} s · confidence ${word.confidence.toFixed(2)}`;
  span.textContent = word.text ?? word.word;  // as written, once it is final
  return span;
}

function fill(element, words) {
  element.replaceChildren(...words.flatMap(word => [wordSpan(word), " "]));
}

function paintText() {
  const list = $("live-finals");
  while (list.children.length > page.segments.length) list.lastChild.remove();
  for (const segment of page.segments.slice(list.children.length)) {
    const item = document.createElement("li"), time = document.createElement("time"), text = document.createElement("p");
    time.textContent = clock(segment.start);
    fill(text, segment.words);
    item.append(time, text);
    list.append(item);
  }
  const words = page.partial ? page.partial.words : [], firm = page.partial ? page.partial.stable : 0;
  fill($("live-partial"), words);
  [...$("live-partial").children].forEach((word, i) => word.classList.toggle("firm", i < firm));
  $("live-empty").hidden = !!(page.segments.length || page.partial);
  const paper = list.parentNode;
  paper.scrollTop = paper.scrollHeight;
  paintCaption();
}

// Large: what is firm, of the utterance that goes on, too; below it, gray, what may change.
function paintCaption() {
  const words = page.partial ? page.partial.words.map(word => word.word) : [], firm = page.partial ? page.partial.stable : 0;
  const said = page.segments.slice(-CAPTION_UTTERANCES).map(segment => segment.text.split(" "));
  if (firm) said.push(words.slice(0, firm));
  const lines = [];  // an utterance each
  let room = CAPTION_WORDS;
  for (const line of said.reverse()) {
    if (room > 0) lines.unshift(line.slice(-room).join(" "));
    room -= line.length;
  }
  $("caption-firm").textContent = lines.join("\n");
  $("caption-loose").textContent = words.slice(firm).join(" ");
}

async function copy() {
  const button = $("live-copy"), text = page.segments.map(segment => segment.text).join("\n");
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // not over http, or not allowed
    const field = document.body.appendChild(Object.assign(document.createElement("textarea"), {value: text}));
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => button.textContent = "Copy", COPIED_MS);
}

// The space bar belongs to what has the focus, and else to the live page.
function spaceIsFree({key, target, repeat, ctrlKey, altKey, metaKey}) {
  return key === " " && !repeat && !ctrlKey && !altKey && !metaKey && $("live")?.offsetParent &&
    !target.closest("input, textarea, select, button, a, video, audio, summary, [contenteditable], [role=tab]");
}

function caption(open) {
  $("caption-view").hidden = !open;
  if (open) $("caption-view").focus();
}

function clear() {
  page.segments = []; page.partial = null;
  if (!page.recording) { page.offset = 0; $("live-clock").textContent = "0:00"; }
  notice("");
  paintText();
}

async function download(format) {
  const body = JSON.stringify({duration: page.offset, segments: page.segments});
  const answer = await fetch(new URL(`transcript/${format}`, location.href), {method: "POST", body}).catch(() => null);
  if (!answer?.ok) return notice(answer ? await answer.text() : "The server cannot be reached: the text is kept, try again later.");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = `transcript.${format}`;
  link.click();
}

const insecure = () => `Browsers give a page the microphone only over https or on localhost, and this is ${location.origin}: open it as ` +
  `http://localhost${location.port ? ":" + location.port : ""} on the computer itself, or start it with --ssl-keyfile and --ssl-certfile.`;

function change() {
  const recording = page.recording;
  if (recording?.socket?.readyState === WebSocket.OPEN) send(recording, JSON.stringify(settings()));
}

document.addEventListener("click", ({target}) => {
  if (target.closest("#live-mic")) page.recording ? stop() : start();
  else if (target.closest("#live-clear")) clear();
  else if (target.closest("#live-copy")) copy();
  else if (target.closest("#live-example")) { $("live-source").value = "example"; start(); }
  else if (target.closest("#live-caption")) caption(true);
  else if (target.closest("#caption-close")) caption(false);
  else if (target.closest("#live-downloads button")) download(target.dataset.format);
  else if (target.closest(".player-text .word")) {
    const player = target.closest(".file-result").querySelector("video");
    player.currentTime = Number(target.dataset.start);
    player.play();
  }
});
document.addEventListener("change", ({target}) => { if (target.closest("#live-latency, #live-hotwords")) change(); });
document.addEventListener("keydown", event => {
  if (event.key === "Escape") caption(false);
  if (!spaceIsFree(event)) return;
  event.preventDefault();  // no scrolling
  page.recording ? stop() : start();
});
document.addEventListener("timeupdate", ({target}) => {  // media events do not bubble: caught on the way down
  for (const word of target.closest(".file-result")?.querySelectorAll(".player-text .word") || [])
    word.classList.toggle("now", Number(word.dataset.start) <= target.currentTime && target.currentTime < Number(word.dataset.end));
}, true);
document.addEventListener("loadedmetadata", ({target}) => {  // a recording without a picture needs no screen
  if (target.matches?.(".file-result video")) target.classList.toggle("sound", !target.videoWidth);
}, true);
const ready = setInterval(() => {
  if (!$("live")) return;
  clearInterval(ready);
  if (window.isSecureContext) listMicrophones();
  else notice(insecure());
}, 50);
})();
