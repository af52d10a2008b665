// Transcribes a WAV file (mono, 16 bits) with a server that speaks Vosk's protocol:
//
//     node vosk.mjs ws://127.0.0.1:2700/ws talk.wav
//
// Node 22 and later have WebSocket; earlier ones want the option --experimental-websocket.
import {readFileSync} from "node:fs";

const BLOCK_BYTES = 8000;
const [address, path] = process.argv.slice(2);
const wav = readFileSync(path);  // its header says the sample rate
const socket = new WebSocket(address);

function fail(sentence) {
  console.error(sentence);
  process.exit(1);
}

await new Promise(resolve => {
  socket.onopen = resolve;
  socket.onerror = () => fail(`No server answers at ${address}.`);
});
socket.onerror = null;
socket.onclose = ({code, reason}) => fail(`The server ended the session: ${reason || code}`);

async function ask(message) {  // each message has one answer
  const answer = new Promise(resolve => socket.onmessage = event => resolve(JSON.parse(event.data)));
  socket.send(message);
  const {text} = await answer;
  if (text) console.log(text);
}

for (let first = 0; first < wav.length; first += BLOCK_BYTES) await ask(wav.subarray(first, first + BLOCK_BYTES));
socket.onclose = null;
await ask('{"eof": 1}');
