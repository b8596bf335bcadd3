// The live page: devices to frames, frames to the server, answers to the view.
import { askFor, devices, hear, see } from "./capture.js";
import { Clock } from "./clock.js";
import { FINAL, Link } from "./link.js";
import { download, FORMATS, Ring } from "./ring.js";
import { $, make, View } from "./view.js";

const token = location.hash.slice(1), memory = sessionStorage;
const HOUR = 3600e3;
const WAIT = 80; // milliseconds that sound waits for pictures that belong to it
let facts, view, live = null, wake = null;

function notice(text, { bad, label, action, seconds } = {}) {
  const [span, button] = $("notice").children;
  $("notice").hidden = !text;
  $("notice").className = bad ? "notice bad" : "notice";
  [span.textContent, button.textContent, button.onclick, button.hidden] = [text, label, action, !action];
  clearTimeout(notice.timer);
  if (seconds) notice.timer = setTimeout(notice, 1000 * seconds);
}
const fault = (error) => notice(error.message, { bad: true });

function state(text, kind = "") {
  $("link").className = `state ${kind}`;
  $("link").lastElementChild.textContent = text;
}

// One stream, from the button to the last answer.
class Live {
  constructor() {
    Object.assign(this, { facts, clock: new Clock(facts.rate), waiting: [], away: "", latency: null });
    const { block, grain, rate, fingerprint } = facts, kept = JSON.parse(memory.getItem("stream")), passed = Date.now() - kept?.at;
    this.frame = block <= rate / 5 ? block : Math.max(1, Math.round(rate / 10 / grain)) * grain; // ticks
    const known = passed < HOUR && kept.fingerprint === fingerprint;
    if (known) {
      this.away = "the page was loaded anew";
      kept.tick += Math.ceil(((passed / 1000) * rate) / this.frame) * this.frame;
    }
    this.tick = this.begin = known ? kept.tick : 0;
    this.link = new Link(token, this, known ? kept : {});
  }

  // Opens the devices, perhaps others than before; one after another, if that is asked for again meanwhile.
  capture() {
    return (this.opening = (this.opening ?? Promise.resolve()).catch(() => {}).then(() => this.open_devices()));
  }

  async open_devices() {
    const { sound, picture, rate } = this.facts, onLost = (why) => this.lost(why);
    const media = await askFor({ sound: sound && ($("sound").value || true), picture: picture && ($("picture").value || true) });
    this.close_devices();
    try {
      await this.open(media, sound, picture, rate, onLost);
    } finally {
      if (live !== this || !(this.ears || this.eyes)) this.close_devices(), media.getTracks().forEach((track) => track.stop());
    }
    await fill_devices(media);
  }

  async open(media, sound, picture, rate, onLost) {
    if (sound) this.ears = await hear(media, { rate, frame: this.frame, onFrame: (frame) => this.heard(frame), onLost, onState: (now) => this.sounds(now) });
    if (picture) this.eyes = await see(media, $("video"), { rate: picture.rate, onPicture: (one) => this.saw(one), onLost });
  }

  close_devices() {
    this.ears?.stop();
    this.eyes?.stop();
    this.ears = this.eyes = null;
  }

  heard({ samples, peak, at }) {
    if (!this.link.facts) return; // the server has not said from where on
    const back = this.away && this.clock.start !== undefined, why = this.away || "behind", size = samples.length;
    const lost = back ? this.clock.tickAt(at) - size - this.tick : this.clock.note(this.tick + size, at);
    if (back) this.clock = new Clock(this.facts.rate);
    this.away = "";
    if (lost > size / 2) this.tick += Math.round(lost / size) * size;
    const tick = this.tick;
    this.tick += size;
    view.sound(tick, samples, peak);
    $("start").dataset.tick = this.tick;
    if (!this.eyes) return this.link.sound(tick, samples, why);
    this.waiting.push({ tick, samples, why });
    setTimeout(() => this.release(tick + 1), WAIT);
  }

  // Sound that begins before a tick is sent.
  release(before) {
    while (this.waiting[0]?.tick < before) {
      const { tick, samples, why } = this.waiting.shift();
      this.link.sound(tick, samples, why);
    }
  }

  saw({ jpeg, at }) {
    if (!this.link.facts) return;
    if (this.facts.sound) {
      if (!this.tick || this.away || this.clock.start === undefined) return; // without sound there is no time
      const tick = (this.seen = Math.max(this.seen ?? 0, Math.round(this.clock.tickAt(at))));
      view.ring.push(tick, jpeg);
      this.link.picture(tick, 0, jpeg);
      return this.release(tick - this.frame + 1);
    }
    // The picture before stands for the places on the model's grid until this one.
    this.clock.start ??= at - this.tick / this.clock.perMillisecond;
    const place = Math.ceil(this.clock.tickAt(at)), length = place - this.tick;
    if (this.last && length > 0 && length <= this.facts.rate) {
      view.ring.push(this.tick, this.last);
      this.link.picture(this.tick, length, this.last, this.away || "behind");
      this.away = "";
    }
    if (length > 0 || !this.last) (this.tick = place), (this.last = jpeg); // after more than a second a gap
  }

  // The camera gives no pictures for now.
  hide(why) {
    if (this.facts.sound) this.link.blind(this.tick, why);
    else this.away = why;
  }

  lost(text) {
    const camera = text.includes("camera"), why = text.toLowerCase();
    if (camera) this.hide(why);
    else this.away = why;
    (camera ? this.eyes : this.ears)?.stop(); // else a microphone that is gone is silence
    notice(`${text}: connect it again, or choose another one.`, { bad: true });
    this.missing = true;
  }

  sounds(now) {
    if (now === "running") return this.away && notice();
    this.away = "the sound was interrupted";
    notice("The system interrupted the sound.", { label: "Go on", action: () => this.ears.resume() });
  }

  // From here on what the link tells.
  state(name, { reason, code, sentence } = {}) {
    if (name === "live") {
      state("Live", "good");
      if (!this.broken) return;
      if (!this.restarted) notice();
      view.mark(this.broken / this.facts.rate, `connected again${this.restarted ? ", a new stream began" : this.link.lost ? "" : ", nothing lost"}`);
      this.broken = 0;
    } else if (name === "waiting") {
      this.broken ||= Math.max(1, this.tick);
      state("No connection", "bad");
      const why = code === 1006 || !reason ? "The connection to the server is lost" : reason.replace(/\.$/, "");
      notice(`${why}; ${this.link.facts ? "what is captured meanwhile is sent later" : "it is tried again"}.`);
    } else if (name === "refused") {
      notice(sentence, { bad: true, ...(code === 4409 && { label: "Take it back", action: start }) });
      this.halt();
    } else if (name === "ended") {
      memory.removeItem("stream");
      this.halt();
    } else state(name, "warn");
  }

  welcome(now, restarted) {
    this.restarted = restarted;
    if (now.fingerprint === this.facts.fingerprint) return restarted && notice(`A new stream began: ${now.why}`, { seconds: 20 });
    const same = ["rate", "sound", "block"].every((key) => now[key] === facts[key]) && !now.picture === !facts.picture;
    facts = this.facts = now;
    fresh_view();
    if (!same) start();
    notice("The model was replaced: a new stream began.", { seconds: 20 });
  }

  answer(answer) {
    view.answer(answer);
    if (!answer.rows.length) return;
    const late = performance.now() - this.clock.timeOf((answer.first + answer.rows.length / this.facts.labels.length) * this.facts.hop);
    this.latency += (this.latency === null || Math.abs(late - this.latency) > 1000 ? 1 : 0.1) * (late - this.latency);
  }

  seal(kept) {
    if (kept.seal.length < 1e6) memory.setItem("stream", JSON.stringify({ ...kept, fingerprint: this.facts.fingerprint, at: Date.now() }));
  }

  sent(bytes) {
    document.dispatchEvent(new CustomEvent("sent", { detail: bytes }));
  }

  stop() {
    this.close_devices();
    this.release(Infinity);
    this.link.end();
  }

  // It is over.
  halt() {
    this.close_devices();
    if (live !== this) return;
    live = null;
    view.open = [];
    view.name("Stopped");
    shown();
    state("Stopped");
    wake?.release();
  }

  // Once a second.
  look() {
    view.age();
    if (this.link.now !== "live") return;
    const backlog = this.link.backlog;
    if (backlog > 1) state(`Catching up, ${backlog.toFixed(0)} s`, "warn");
    else if (this.latency !== null) state(`Live, ${Math.round(this.latency)} ms`, "good");
  }
}

function shown() {
  $("start").textContent = live ? "Stop" : "Start";
  $("start").classList.toggle("on", live !== null);
}

async function fresh_view() {
  const saved = view?.saved ?? [];
  view = new View(facts, new Ring(facts.rate), saved);
  view.name(live ? undefined : "Press Start");
  if (!facts.teach) return;
  view.teach = await import("./teach_live.js");
  const now = () => (live?.tick ?? 0) / facts.rate;
  view.teach.missed($("tools"), (seconds) => view.cut(now() - seconds, now()));
}

async function start() {
  live?.link.close();
  notice();
  try {
    fresh_view();
    live = new Live();
    shown();
    view.name();
    await live.capture();
    await keep_awake();
  } catch (error) {
    live?.link.close();
    fault(error);
  }
}
$("start").onclick = () => (!live ? start() : live.link.ending ? live.link.close() : live.stop()); // a second time: at once

// The lists of devices; those in use are chosen.
async function fill_devices(media) {
  const found = await devices();
  for (const [kind, track] of [["sound", "audio"], ["picture", "video"]]) {
    const used = media?.getTracks().find((one) => one.kind === track)?.getSettings().deviceId;
    $(kind).replaceChildren(...found[kind].map(({ id, label }) => new Option(label, id, false, id === used)));
    $(`${kind}s`).hidden = !facts[kind] || !found[kind][0]?.label;
  }
}
for (const kind of ["sound", "picture"])
  $(kind).onchange = () => {
    if (!live) return;
    live.away = "another device was chosen";
    live.capture().catch(fault);
  };
navigator.mediaDevices?.addEventListener("devicechange", () => {
  if (!live?.missing) return fill_devices();
  live.missing = false;
  $("sound").value = $("picture").value = "";
  live.capture().then(() => notice(), fault);
});

async function keep_awake() {
  wake = await navigator.wakeLock?.request("screen").catch(() => null);
}
document.addEventListener("visibilitychange", () => {
  if (!live) return;
  if (document.hidden && facts.picture) live.hide("the tab was in the background");
  if (document.hidden) notice(`The tab was in the background; ${facts.picture ? "browsers stop the camera there" : "the sound went on"}.`);
  else keep_awake(), (notice.timer = setTimeout(notice, 8000));
});

document.addEventListener("keydown", (press) => {
  if (press.target.closest("button, select, input, a") || press.ctrlKey || press.metaKey || press.altKey) return;
  if (press.key === " ") $("start").click();
  else if (press.key.toLowerCase() === "p") view?.play_newest();
  else return;
  press.preventDefault();
});
for (const button of document.querySelectorAll("[data-format]"))
  button.onclick = () => download(`events.${button.dataset.format}`, new Blob([FORMATS[button.dataset.format](view.saved)]));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => view?.recolour());

// The canvases move with the stream's own time; without one they stand.
let drawn = 0;
function draw(now) {
  requestAnimationFrame(draw);
  if (!view || document.hidden || now - drawn < 30) return;
  drawn = now;
  if (live?.clock.start !== undefined) view.now = Math.max(live.begin, Math.min(live.clock.tickAt(now), live.tick + facts.rate / 5)) / facts.rate - 0.1;
  view.draw(Math.max(0, view.now ?? 0));
}
requestAnimationFrame(draw);

let skew = Date.now() - performance.now();
setInterval(() => {
  const before = skew, jump = Math.round(((skew = Date.now() - performance.now()) - before) / 1000);
  if (live && jump) {
    live.clock = new Clock(facts.rate);
    notice(`The computer slept, or its clock jumped by ${jump} s; the stream counts its own time.`, { seconds: 20 });
  }
  live?.look();
}, 1000);

async function open() {
  const answer = await fetch("v1/model", { headers: { Authorization: `Bearer ${token}` } }).catch(() => null);
  if (!answer) throw new Error("The server does not answer: start it, then load this page again.");
  if (answer.status === 401) throw new Error(FINAL[4401]);
  const said = await answer.json();
  if (!answer.ok && said.teach) return location.replace(`/teach#${token}`);
  if (!answer.ok) throw new Error(said.error);
  $("teach").hidden = !said.teach;
  $("teach").href = `/teach#${token}`;
  facts = said;
  const { sound, rate, block, picture, fingerprint } = facts;
  $("facts").textContent = [sound && `${sound / 1000} kHz`, picture && `${picture.rate} pictures a second`, `answers every ${Math.round((1000 * block) / rate)} ms`, `model ${fingerprint.slice(0, 8)}`].filter(Boolean).join(" · ");
  await fresh_view();
  await fill_devices();
  $("start").disabled = false;
  state("Ready");
}
open().catch((error) => (fault(error), state("Not connected", "bad")));
