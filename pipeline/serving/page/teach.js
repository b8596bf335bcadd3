// The page that teaches: background, classes, training, and what to take home.
import { BACKGROUND, ask, keep, move, next_take, place_of, state } from "./teach_api.js";
import { askFor, devices, hear, see } from "./capture.js";
import { drawSpectrum, pencil } from "./draw.js";
import { play, show } from "./ring.js";
import { $, make } from "./view.js";

const RATE = 16000, FRAME = 800, BEFORE = 4; // frames before the button was pressed
const GESTURE = 2.5, PICTURES = 15, LONGEST = 60, PIECE = 3; // seconds, a second, seconds, seconds of a background in pictures
const KINDS = { sounds: "Sounds", words: "Words", gestures: "Gestures" };
const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
const named = new Set(); // classes without clips
const tiles = new Map(); // of clips, by their place
let known, take = 1, input, busy;

const seen = () => $("kind").value === "gestures";
const place = () => $("place").value.trim() || "home";

function notice(error) {
  $("notice").hidden = !error;
  $("notice").textContent = error?.message ?? error ?? "";
}
const tried = (act) => (...given) => act(...given).then(() => {}, notice);

// ---- what is recorded: the newest frames, and those of a clip
class Input {
  async open() {
    const chosen = $("device").value || true;
    const stream = await askFor(seen() ? { picture: chosen } : { sound: chosen });
    const lost = (why) => (close_input(), notice(`${why}: connect it, then record again.`));
    this.frames = [];
    this.device = seen()
      ? await see(stream, $("video"), { rate: PICTURES, onPicture: (picture) => this.push(picture), onLost: lost })
      : await hear(stream, { rate: RATE, frame: FRAME, onFrame: (frame) => this.push(frame), onLost: lost });
    $("video").hidden = !seen();
    $("state").className = "state good";
    $("state").lastChild.textContent = seen() ? "Camera on" : "Microphone on";
    await fill_devices();
    return this;
  }

  push(frame) {
    this.frames.push(frame);
    if (!this.kept && this.frames.length > BEFORE) this.frames.shift();
    if (frame.peak !== undefined) level(frame.peak);
    this.kept?.(this.frames);
  }

  // Frames until `enough(seconds)`, as a clip; `told` how many seconds there are.
  record(enough, told = () => {}) {
    if (seen()) this.frames = [];
    return new Promise((resolve) => {
      this.kept = (frames) => {
        const seconds = seen() ? (frames.at(-1).at - frames[0].at) / 1000 : (frames.length * FRAME) / RATE;
        told(seconds);
        if (!enough(seconds)) return;
        this.kept = null;
        if (seen()) return resolve(frames.splice(0));
        const clip = new Int16Array(frames.length * FRAME);
        frames.splice(0).forEach(({ samples }, k) => clip.set(samples, k * FRAME));
        resolve(clip);
      };
    });
  }
}
const opened = async () => (input ??= await new Input().open());

function close_input() {
  input?.device?.stop();
  input = null;
  $("video").hidden = true;
  $("state").className = "state";
  $("state").lastChild.textContent = seen() ? "Camera off" : "Microphone off";
}

function level(peak) {
  const decibels = peak ? 20 * Math.log10(peak) : -60;
  $("level").classList.toggle("clipping", peak >= 0.999);
  $("level").querySelector("i").style.transform = `translateX(${Math.min(0, Math.max(-100, decibels / 0.6))}%)`;
}

async function fill_devices() {
  const found = (await devices())[seen() ? "picture" : "sound"], now = $("device").value;
  $("device").replaceChildren(...found.map(({ id, label }) => new Option(label || (seen() ? "Camera" : "Microphone"), id)));
  if (found.some(({ id }) => id === now)) $("device").value = now;
  $("device").parentElement.hidden = found.length < 2;
}

// A button that records into a class: while it is held, or what a gesture or the background takes.
function recorder(label, text) {
  const button = make("button", text, "hold"), silent = label === BACKGROUND, held = !silent && !seen();
  let down = false, after; // frames behind the end of the button
  const whole = silent ? known.seconds : held ? LONGEST : GESTURE, piece = silent && seen() ? PIECE : whole;
  const enough = (seconds) => seconds >= piece || (!down && (held || silent) && (after += 1) > 2);
  async function record() {
    if (busy) return;
    [busy, down, after] = [button, true, 0];
    notice();
    button.classList.add("on");
    try {
      const source = await opened();
      if (seen()) for (const count of [3, 2, 1]) (button.textContent = `${count} …`), await wait(0.7);
      for (let done = 0; done < whole && (down || !done); done += piece) {
        const clip = await source.record(enough, (seconds) => (button.textContent = held ? `${seconds.toFixed(1)} s` : `${Math.max(0, whole - done - seconds).toFixed(0)} s left`));
        if (clip.length < 0.4 * RATE && !seen()) throw new Error("Hold the button while the sound lasts, for half a second at least.");
        await kept(clip, label);
      }
    } catch (error) {
      notice(error);
    }
    busy = null;
    button.classList.remove("on");
    button.textContent = text;
    render();
  }
  if (!held) button.onclick = () => (busy === button ? (down = false) : record());
  else {
    const press = (event) => (event.preventDefault(), record());
    button.onpointerdown = (event) => (button.setPointerCapture(event.pointerId), press(event));
    button.onpointerup = button.onpointercancel = button.onblur = button.onkeyup = () => (down = false);
    button.onkeydown = (event) => [" ", "Enter"].includes(event.key) && !event.repeat && press(event);
  }
  return button;
}

async function kept(clip, label) {
  const { label: there, name } = await keep(clip, label, place(), take, RATE);
  tiles.set(place_of(there, name), tile(there, name, clip));
  named.delete(label);
  await look();
}

// ---- a clip that is seen, heard, deleted and moved
function tile(label, name, clip) {
  const box = make("div", "", "tile"), canvas = make("canvas"), button = make("button"), tools = make("span");
  const remove = make("button", "Delete"), to = make("select");
  const load = async () => (clip ??= await read(await (await ask("GET", place_of(label, name))).blob(), name.endsWith(".mp4")));
  const draw = tried(async () => paint(canvas, await load()));
  new IntersectionObserver(([entry], watcher) => entry.isIntersecting && (watcher.disconnect(), draw())).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  button.ariaLabel = `Play ${name}`;
  button.onclick = tried(async () => {
    box.classList.add("playing");
    await (clip instanceof Int16Array ? play(clip, RATE) : show(await load(), canvas));
    box.classList.remove("playing");
    if (!(clip instanceof Int16Array)) draw();
  });
  remove.onclick = tried(async () => (await ask("DELETE", place_of(label, name)), look()));
  to.ariaLabel = "Move to";
  to.onfocus = () => to.replaceChildren(new Option("Move", ""), ...labels().filter((one) => one !== label).map((one) => new Option(one, one)));
  to.append(new Option("Move", ""));
  to.onchange = tried(async () => (await move(label, name, to.value), look()));
  tools.append(to, remove);
  box.append(canvas, button, tools);
  box.title = name;
  return box;
}

// A file as a clip: samples, or pictures.
async function read(file, pictures) {
  if (pictures) return cut(file);
  const decoded = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await file.arrayBuffer()).catch(() => {
    throw new Error(`${file.name ?? "The file"} holds no sound that this browser can read.`);
  });
  const mixed = new Float32Array(decoded.length);
  for (let k = 0; k < decoded.numberOfChannels; k++) decoded.getChannelData(k).forEach((x, at) => (mixed[at] += x / decoded.numberOfChannels));
  return Int16Array.from(mixed, (x) => Math.max(-32768, Math.min(32767, Math.round(x * 32768))));
}

async function cut(file) {
  const video = Object.assign(make("video"), { muted: true, src: URL.createObjectURL(file) }), found = [];
  await new Promise((resolve, reject) => {
    video.onloadeddata = resolve;
    video.onerror = () => reject(new Error(`${file.name ?? "The file"} holds no pictures that this browser can read.`));
  });
  const canvas = new OffscreenCanvas(320, 2 * Math.round((160 * video.videoHeight) / video.videoWidth));
  for (let at = 0; at < Math.min(video.duration, LONGEST / 4); at += 1 / PICTURES) {
    video.currentTime = at;
    await new Promise((resolve) => (video.onseeked = resolve));
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    const jpeg = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.85 });
    found.push({ jpeg: new Uint8Array(await jpeg.arrayBuffer()), at: 1000 * at });
  }
  URL.revokeObjectURL(video.src);
  return found;
}

async function paint(canvas, clip) {
  if (clip instanceof Int16Array) return drawSpectrum(canvas, clip, RATE);
  const { context, width, height } = pencil(canvas), count = 3;
  for (let k = 0; k < count; k++) {
    const image = await createImageBitmap(new Blob([clip[Math.floor(((k + 0.5) * clip.length) / count)].jpeg]));
    const side = Math.min(image.width, (image.height * width) / count / height);
    context.drawImage(image, (image.width - side) / 2, 0, side, image.height, (k * width) / count, 0, width / count - 1, height);
  }
}

// ---- the page as the folder is
const labels = () => [BACKGROUND, ...known.classes.map(({ label }) => label), ...named].filter((one, at, all) => all.indexOf(one) === at);

function card({ label, clips, takes, places, seconds, list }, number) {
  const box = make("div", "", "card class"), told = make("p"), fill = make("div", "", "fill"), bar = make("i");
  const own = make("div", "", "tiles"), acts = make("div", "", "acts"), files = make("label", "Upload"), upload = make("input");
  const silent = label === BACKGROUND, counts = { clips, takes, places };
  box.dataset.label = label;
  box.style.setProperty("--tone", silent ? "var(--soft)" : `var(--class${number % 8})`);
  if (silent) told.append(make("b", seconds.toFixed(0), seconds >= known.seconds ? "met" : ""), ` of ${known.seconds} s`);
  else Object.entries(known.wanted).forEach(([what, most], k) => told.append(k ? " · " : "", make("b", counts[what], counts[what] >= most ? "met" : ""), ` of ${most} ${what}`));
  bar.style.width = `${Math.min(100, 100 * (silent ? seconds / known.seconds : clips / known.wanted.clips))}%`;
  for (const { name } of list) {
    const key = place_of(label, name);
    if (!tiles.has(key)) tiles.set(key, tile(label, name));
    own.prepend(tiles.get(key));
  }
  Object.assign(upload, { type: "file", multiple: true, accept: seen() ? "video/*" : "audio/*,video/*" });
  upload.onchange = tried(async () => {
    for (const file of upload.files) await kept(await read(file, seen()), label);
  });
  files.append(upload);
  acts.append(recorder(label, silent ? `Record ${known.seconds} s` : seen() ? "Record a gesture" : "Hold to record"), files);
  fill.append(bar);
  box.append(make("h3", label), told, fill, own, acts);
  return box;
}

function render() {
  if (busy) return;
  const empty = (label) => ({ label, clips: 0, takes: 0, places: 0, seconds: 0, list: [] });
  const [background, ...rest] = labels().map((label) => known.classes.find((one) => one.label === label) ?? empty(label));
  $("background").replaceChildren(card(background));
  $("classes").replaceChildren(...rest.map(card), $("new"));
  $("take").textContent = `Take ${take}`;
  $("hint").textContent = seen() ? "one person's gestures are that person's: let others show them, too" : "some clips of each, then a new take: other day, other distance";
  $("background").parentElement.classList.toggle("done", background.seconds >= known.seconds);
  const enough = (one) => Object.entries(known.wanted).every(([what, most]) => one[what] >= most);
  $("classes").parentElement.classList.toggle("done", rest.length > 0 && rest.every(enough));
}

function render_training() {
  const { running, runs, run, history = [], epochs, error, command } = known.training, done = history.length, times = history.slice(1);
  $("train").hidden = $("again").hidden = running;
  $("again").hidden ||= !runs.some(({ run }) => run.endsWith(`-${$("kind").value}`));
  $("stop").hidden = $("progress").hidden = !running;
  $("train").disabled = $("again").disabled = known.missing !== "";
  $("why").className = error ? "bad" : "";
  const left = (times.reduce((sum, { seconds }) => sum + seconds, 0) / times.length) * (epochs - done);
  const now = !done ? "It reads the clips." : done === epochs ? "It writes the model and the report." : `Epoch ${done} of ${epochs}, ${(100 * history[done - 1].accuracy).toFixed(0)} % of what is held out is right${left ? `, about ${10 * Math.ceil(left / 10)} s left` : ""}.`;
  $("why").textContent = running ? now : error || known.missing || (run && runs.at(-1)?.run === run ? "Done: try it below." : "");
  Object.assign($("progress"), { max: epochs || 1, value: done });
  $("runs").replaceChildren(...[...runs].reverse().map(row));
  $("train").closest("section").classList.toggle("done", runs.length > 0);
  $("runs").parentElement.classList.toggle("done", runs.some(({ run }) => run === known.installed));
  $("shell").hidden = !command;
  $("shell").lastElementChild.textContent = `${command}\npython infer.py checkpoint=${known.folder}/.rivulet/${run} source=browser source.teach=${known.folder}`;
}

function row({ run, files, accuracy, count, seconds }) {
  const item = make("li"), live = known.installed === run, use = make("button", live ? "Live" : "Try live", live ? "" : "main"), home = make("p", "", "files");
  use.onclick = tried(async () => {
    use.disabled = true;
    if (!live) await ask("POST", `/teach/install?run=${run}`).finally(() => (use.disabled = false));
    location.href = `/${location.hash}`;
  });
  for (const name of files) {
    const file = make("button", name, "quiet");
    file.onclick = tried(async () => {
      const link = Object.assign(make("a"), { href: URL.createObjectURL(await (await ask("GET", `/teach/runs/${run}/${name}`)).blob()), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
    home.append(file);
  }
  const figures = accuracy === undefined ? "" : `${(100 * accuracy).toFixed(0)} % of ${count} held-out pieces right · ${(seconds / 60).toFixed(1)} min`;
  item.append(make("b", `Model ${run.split("-")[0]}`), make("span", figures), home, use);
  return item;
}

async function look() {
  known = await state();
  render();
  render_training();
}

async function begin(again) {
  notice();
  await ask("POST", `/teach/train?${new URLSearchParams({ recipe: $("kind").value, again: Number(again) })}`);
  await look();
}

$("train").onclick = tried(() => begin(false));
$("again").onclick = tried(() => begin(true));
$("stop").onclick = tried(async () => (await ask("POST", "/teach/stop"), look()));
$("next").onclick = () => ((take += 1), render());
$("place").onchange = () => ((localStorage.place = place()), (take = next_take(known, place())), render());
$("device").onchange = () => close_input();
$("kind").onchange = () => (close_input(), fill_devices(), render(), render_training());
$("new").onsubmit = (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  if (name) named.add(name), ($("name").value = ""), render();
};
setInterval(tried(async () => known?.training.running && ((known = await state()), render_training())), 1000);

known = await state().catch((error) => (notice(error), Promise.reject(error)));
$("place").value = localStorage.place ?? "home";
take = next_take(known, place());
const pictures = known.pictures, any = known.classes.some(({ clips }) => clips), kinds = Object.keys(KINDS).filter((kind) => (kind !== "words" || known.words) && (!any || (kind === "gestures") === pictures));
$("kind").replaceChildren(...kinds.map((kind) => new Option(KINDS[kind], kind)));
if (known.training.run) $("kind").value = known.training.run.split("-")[1];
$("live").href = `/${location.hash}`;
await fill_devices();
render();
render_training();
