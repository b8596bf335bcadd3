// Hears the microphone, or a file, and shows what the model says. Nothing leaves this page.
import * as ort from "./ort.wasm.bundle.min.mjs";
import { Stream } from "./stream.js";

const [listen, file, status, table, list] = ["listen", "file", "status", "labels", "events"].map((id) => document.getElementById(id));
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", location.href).href };
const card = await (await fetch("model.json")).json();
const session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });

const meters = card.labels.map((label, k) => {
  const row = table.insertRow(), meter = document.createElement("meter");
  row.insertCell().textContent = label;
  if (card.events.high[k] <= 1) meter.high = card.events.high[k];
  row.insertCell().append(meter);
  return meter;
});

function show(stream, events) {
  stream.last.forEach((score, k) => (meters[k].value = score));
  for (const { label, start, end, score } of events) {
    const item = document.createElement("li");
    item.textContent = `${label}, ${start.toFixed(2)} to ${end.toFixed(2)} s, ${score.toFixed(2)}`;
    list.prepend(item);
  }
}

// One after another: a model's step needs the states that the one before it left.
function listener() {
  const stream = new Stream(ort, session, card);
  let work = Promise.resolve();
  const then = (job) => (work = work.then(async () => show(stream, await job())).catch((error) => (status.textContent = error)));
  return {
    hear: (samples) => then(() => (document.dispatchEvent(new CustomEvent("samples", { detail: samples })), stream.push(samples))),
    close: () => then(() => stream.close()),
  };
}

async function microphone() {
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const media = await navigator.mediaDevices.getUserMedia({ audio: plain });
  const context = new AudioContext({ sampleRate: card.spec.sound });
  await context.audioWorklet.addModule("worklet.js");
  const node = new AudioWorkletNode(context, "samples"), { hear, close } = listener();
  node.port.onmessage = ({ data }) => hear(data);
  context.createMediaStreamSource(media).connect(node);
  return async () => {
    media.getTracks().forEach((track) => track.stop());
    await context.close();
    await close();
  };
}

let stop = null;
listen.onclick = async () => {
  const running = stop;
  stop = null;
  try {
    if (running) await running();
    else stop = await microphone();
    status.textContent = stop ? "Listening." : "Ready.";
    listen.textContent = stop ? "Stop" : "Listen";
  } catch (error) {
    status.textContent = `No microphone: ${error.message}. It needs https, or http://localhost.`;
  }
};
file.onchange = async () => {
  const { hear, close } = listener();
  const data = await file.files[0].arrayBuffer();
  const sound = await new OfflineAudioContext(1, 1, card.spec.sound).decodeAudioData(data);
  hear(sound.getChannelData(0));
  await close();
  status.textContent = `${file.files[0].name} is over.`;
};
status.textContent = "Ready.";
