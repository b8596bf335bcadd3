// The live page: devices to frames, frames to the server, answers to the view.
import { askFor, devices, hear, see } from "./capture.js";
import { Clock } from "./clock.js";
import { Link } from "./link.js";
import { download, FORMATS, Ring } from "./ring.js";
import { $, make, View } from "./view.js";

const token = location.hash.slice(1);
const HOUR = 3600e3;
const WAIT = 80; // milliseconds that sound waits for pictures that belong to it
const SILENT = "what was captured meanwhile is sent later";
let facts, view, live = null, wake = null;

function notice(text, { bad = false, action, label, seconds } = {}) {
  const [span, button] = $("notice").children;
  $("notice").hidden = !text;
  $("notice").classList.toggle("bad", bad);
  span.textContent = text ?? "";
  button.hidden = !action;
  button.textContent = label ?? "";
  button.onclick = action;
  clearTimeout(notice.timer);
  if (seconds) notice.timer = setTimeout(() => notice(), 1000 * seconds);
}

function state(text, kind = "") {
  $("link").className = `state ${kind}`;
  $("link").lastElementChild.textContent = text;
}

// One stream, from the button to the last answer.
class Live {
  constructor(facts) {
    Object.assign(this, { facts, clock: new Clock(facts.rate), waiting: [], latency: null, away: "", ears: null, eyes: null });
    const kept = JSON.parse(sessionStorage.getItem("stream") ?? "null"), passed = kept ? Date.now() - kept.at : HOUR;
    const going_on = passed < HOUR && kept.fingerprint === facts.fingerprint;
    if (going_on) this.away = "the page was loaded anew";
    const resumed = going_on ? { seal: kept.seal, next: kept.next, tick: kept.tick + Math.ceil((passed / 1000) * (facts.rate / this.frame)) * this.frame } : {};
    this.tick = this.begin = resumed.tick ?? 0;
    this.link = new Link(token, this, resumed);
  }

  // Ticks of a frame of sound: a block, if that is short.
  get frame() {
    const { block, grain, rate } = this.facts;
    return block <= rate / 5 ? block : Math.max(1, Math.round(rate / 10 / grain)) * grain;
  }

  // Opens the devices; the stream goes on if they were others before.
  async capture() {
    const { facts } = this, media = await askFor({ sound: facts.sound && ($("sound").value || true), picture: facts.picture && ($("picture").value || true) });
    this.close_devices();
    const lost = (why) => this.lost(why);
    if (facts.sound) this.ears = await hear(media, { rate: facts.rate, frame: this.frame, onFrame: (frame) => this.heard(frame), onLost: lost, onState: (now) => this.sounds(now) });
    if (facts.picture) this.eyes = await see(media, $("video"), { rate: facts.picture.rate, onPicture: (picture) => this.saw(picture), onLost: lost });
    await fill_devices(media);
  }

  heard({ samples, peak, at }) {
    if (!this.link.facts) return this.clock.note(this.tick, at); // the server has not said from where on
    let lost = 0;
    if (this.away && this.clock.start !== undefined) {
      lost = this.clock.tickAt(at) - samples.length - this.tick;
      this.clock = new Clock(this.facts.rate);
    } else lost = this.clock.note(this.tick + samples.length, at);
    const why = this.away || "behind";
    this.away = "";
    if (lost > samples.length / 2) this.tick += Math.round(lost / samples.length) * samples.length;
    const tick = this.tick;
    this.tick += samples.length;
    this.view_sound(tick, samples, peak);
    if (!this.eyes) return this.link.sound(tick, samples, why);
    this.waiting.push({ tick, samples, why });
    setTimeout(() => this.release(tick + 1), WAIT);
  }

  view_sound(tick, samples, peak) {
    view.sound(tick, samples, peak);
    $("start").dataset.tick = this.tick;
  }

  // Sound that begins before a tick is sent.
  release(tick) {
    while (this.waiting.length && this.waiting[0].tick < tick) {
      const { tick, samples, why } = this.waiting.shift();
      this.link.sound(tick, samples, why);
    }
  }

  saw({ jpeg, at }) {
    if (!this.link.facts) return;
    if (this.facts.sound) {
      if (this.clock.start === undefined || !this.tick) return;
      const tick = (this.seen = Math.max(this.seen ?? 0, Math.round(this.clock.tickAt(at))));
      view.ring.push(tick, jpeg);
      this.link.picture(tick, 0, jpeg);
      return this.release(tick - this.frame + 1);
    }
    // The picture before stands for the places on the model's grid until this one.
    this.clock.start ??= at - this.clock.perMillisecond ** -1 * this.tick;
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

  lost(why) {
    const camera = why.includes("camera");
    if (camera) this.hide(why.toLowerCase());
    else this.away = why.toLowerCase();
    (camera ? this.eyes : this.ears)?.stop(); // else a microphone that is gone is silence
    notice(`${why}: connect it again, or choose another one.`, { bad: true });
    this.missing = true;
  }

  sounds(now) {
    if (now === "running") return notice();
    this.away = "the sound was interrupted";
    notice("The system interrupted the sound.", { label: "Go on", action: () => this.ears.resume() });
  }

  // From here on what the link tells.
  state(name, { reason, code, sentence } = {}) {
    if (name === "live" && this.broken) {
      if (!this.restarted) notice();
      view.mark(this.broken / this.facts.rate, `connected again${this.restarted ? ", a new stream began" : this.link.lost ? "" : ", nothing lost"}`);
      this.broken = 0;
    }
    if (name === "waiting") {
      this.broken ||= Math.max(1, this.tick);
      state("No connection", "bad");
      notice(`${code === 1006 || !reason ? "The connection to the server is lost" : reason.replace(/\.$/, "")}; ${this.link.facts ? SILENT : "it is tried again"}.`);
    } else if (name === "refused") {
      notice(sentence, { bad: true, ...(code === 4409 && { label: "Take it back", action: start }) });
      this.halt();
    } else if (name === "ended") this.halt();
    else state({ connecting: "Connecting", reconnecting: "Reconnecting", live: "Live" }[name], name === "live" ? "good" : "warn");
  }

  welcome(now, before, restarted) {
    this.restarted = restarted;
    const same = ["rate", "sound", "block"].every((key) => now[key] === this.facts[key]) && !now.picture === !this.facts.picture;
    if (now.fingerprint !== this.facts.fingerprint) {
      facts = this.facts = now;
      fresh_view();
      notice("The model was replaced: a new stream began.", { seconds: 20 });
      if (!same) {
        sessionStorage.removeItem("stream");
        this.link.close();
        start();
      }
    } else if (restarted) notice(`A new stream began: ${now.why}`, { seconds: 20 });
  }

  answer(answer) {
    view.answer(answer);
    if (!answer.rows.length) return;
    const { hop, labels } = this.facts, end = (answer.first + answer.rows.length / labels.length) * hop;
    const late = performance.now() - this.clock.timeOf(end);
    this.latency = this.latency === null || Math.abs(late - this.latency) > 1000 ? late : this.latency + 0.1 * (late - this.latency);
  }

  seal({ seal, tick, next }) {
    const { fingerprint } = this.facts;
    if (seal.length < 1e6) sessionStorage.setItem("stream", JSON.stringify({ seal, tick, next, fingerprint, at: Date.now() }));
  }

  sent(bytes) {
    document.dispatchEvent(new CustomEvent("sent", { detail: bytes }));
  }

  close_devices() {
    this.ears?.stop();
    this.eyes?.stop();
    this.ears = this.eyes = null;
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
    if (this.link.now === "ended") sessionStorage.removeItem("stream");
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
    else state(this.latency === null ? "Live" : `Live, ${Math.round(this.latency)} ms`, "good");
  }
}

function shown() {
  $("start").textContent = live ? "Stop" : "Start";
  $("start").classList.toggle("on", Boolean(live));
}

function fresh_view() {
  const saved = view?.saved ?? [];
  view = new View(facts, new Ring(facts.rate));
  view.saved = saved;
  view.name(live ? undefined : "Press Start");
  view.count();
  teach();
}

async function start() {
  live?.link.close();
  notice();
  try {
    fresh_view();
    live = new Live(facts);
    shown();
    view.name();
    await live.capture();
    await keep_awake();
  } catch (error) {
    live?.link.close();
    notice(error.message, { bad: true });
  }
}

$("start").onclick = () => (live ? live.stop() : start());

// Pictures of devices in the lists; the one in use is chosen.
async function fill_devices(media) {
  const found = await devices();
  for (const kind of ["sound", "picture"]) {
    const list = $(kind), used = media?.getTracks().find((track) => track.kind === (kind === "sound" ? "audio" : "video"))?.getSettings().deviceId;
    list.replaceChildren(...found[kind].map(({ id, label }) => Object.assign(make("option", label || "Default"), { value: id, selected: id === used })));
    $(`${kind}s`).hidden = !facts[kind] || found[kind].length === 0 || !found[kind][0].label;
  }
}
for (const kind of ["sound", "picture"])
  $(kind).onchange = async () => {
    if (!live) return;
    live.away = "another device was chosen";
    await live.capture().catch((error) => notice(error.message, { bad: true }));
  };
navigator.mediaDevices?.addEventListener("devicechange", async () => {
  if (!live?.missing) return fill_devices();
  live.missing = false;
  $("sound").value = $("picture").value = "";
  await live.capture().then(() => notice(), (error) => notice(error.message, { bad: true }));
});

async function keep_awake() {
  wake = await navigator.wakeLock?.request("screen").catch(() => null);
}
document.addEventListener("visibilitychange", () => {
  if (!live) return;
  if (document.hidden && facts.picture) live.hide("the tab was in the background");
  if (document.hidden) notice(`The tab was in the background; ${facts.picture ? "browsers stop the camera there" : "the sound went on"}.`);
  else keep_awake(), (notice.timer = setTimeout(() => notice(), 8000));
});

document.addEventListener("keydown", (press) => {
  if (press.target.closest("button, select, input, textarea, a, video") || press.ctrlKey || press.metaKey || press.altKey) return;
  if (press.key === " ") $("start").click();
  else if (press.key.toLowerCase() === "p") view?.play_newest();
  else return;
  press.preventDefault();
});
for (const button of document.querySelectorAll("[data-format]"))
  button.onclick = () => download(`events.${button.dataset.format}`, FORMATS[button.dataset.format](view.saved));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => view?.recolour());

async function teach() {
  if (!facts.teach) return;
  view.teach = await import("./teach_live.js");
  view.teach.missed($("tools"), (seconds) => view.clip({ start: (live?.tick ?? 0) / facts.rate - seconds + 0.5, end: (live?.tick ?? 0) / facts.rate - 0.5 }));
}

// The canvases move with the stream's own time; without one they stand.
let drawn = 0;
function draw(now) {
  requestAnimationFrame(draw);
  if (!view || document.hidden || now - drawn < 30) return;
  drawn = now;
  const tick = live && live.clock.start !== undefined ? Math.max(live.begin, Math.min(live.clock.tickAt(now), live.tick + facts.rate / 5)) : live?.tick;
  if (tick !== undefined) view.now = tick / facts.rate - 0.1;
  view.draw(Math.max(0, view.now ?? 0));
}
requestAnimationFrame(draw);

let skew = Date.now() - performance.now();
setInterval(() => {
  const now = Date.now() - performance.now(), jump = Math.round((now - skew) / 1000);
  skew = now;
  if (live && Math.abs(jump) >= 1) {
    live.clock = new Clock(facts.rate);
    notice(`The computer slept, or its clock jumped by ${jump} s; the stream counts its own time.`, { seconds: 20 });
  }
  live?.look();
}, 1000);

async function open() {
  const answer = await fetch("v1/model", { headers: { Authorization: `Bearer ${token}` } });
  if (answer.status === 401) throw new Error("This address lacks the server's token: open the one that the server printed.");
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `The server answers ${answer.status}.`);
  facts = await answer.json();
  $("teach").hidden = !facts.teach;
  $("teach").href = `/teach#${token}`;
  const { sound, rate, block, picture, fingerprint } = facts;
  $("facts").textContent = [sound && `${sound / 1000} kHz`, picture && `${picture.rate} pictures a second`, `answers every ${Math.round((1000 * block) / rate)} ms`, `model ${fingerprint.slice(0, 8)}`].filter(Boolean).join(" · ");
  fresh_view();
  await fill_devices();
  $("start").disabled = false;
  state("Ready");
}
open().catch((error) => (notice(error.message === "Failed to fetch" ? "The server does not answer: start it, then reload." : error.message, { bad: true }), state("Not connected", "bad")));
