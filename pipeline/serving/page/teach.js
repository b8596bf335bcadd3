// The page that teaches: background, classes, training, and what to take home.
import { BACKGROUND, ask, keep, move, next_take, place_of, state } from "./teach_api.js";
import { askFor, devices, hear, jpegOf, see } from "./capture.js";
import { drawSpectrum, pencil } from "./draw.js";
import { download, play, show } from "./ring.js";
import { $, make } from "./view.js";

const RATE = 16000, FRAME = 800, BEFORE = 4, AFTER = 3; // frames kept around the time for which a button is held
const LONGEST = 60, GESTURE = 2.5, PIECE = 3, PICTURES = 15; // seconds: of a clip, a gesture, a piece of its background; a second
const KINDS = { sounds: "Sounds", words: "Words", gestures: "Gestures" };
const named = new Set(), tiles = new Map(); // classes without clips; what is seen of clips, by their place
let known, take, input, busy;

const seen = () => $("kind").value === "gestures";
const place = () => $("place").value.trim() || "home";
const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
const tried = (act) => (...given) => act(...given).catch(notice);

function notice(error) {
  $("notice").hidden = !error;
  $("notice").textContent = error?.message ?? "";
}

// ---- the microphone or the camera
async function open_input() {
  const chosen = $("device").value || true, stream = await askFor(seen() ? { picture: chosen } : { sound: chosen }), mine = { frames: [] };
  const take_in = (frame) => {
    mine.frames.push(frame);
    if (frame.peak !== undefined) $("level").querySelector("i").style.transform = `translateX(${Math.max(-100, Math.log10(frame.peak + 1e-9) * 33)}%)`;
    if (mine.record) mine.record();
    else if (mine.frames.length > BEFORE) mine.frames.shift();
  };
  const onLost = (why) => {
    const error = new Error(`${why}: connect it, then record again.`);
    (mine.fail ?? notice)(error);
    close_input();
  };
  $("video").hidden = !seen();
  mine.device = seen() ? await see(stream, $("video"), { rate: PICTURES, onPicture: take_in, onLost }) : await hear(stream, { rate: RATE, frame: FRAME, onFrame: take_in, onLost });
  [$("state").className, $("state").lastChild.textContent] = ["state good", seen() ? "Camera on" : "Microphone on"];
  await fill_devices();
  return mine;
}

function close_input() {
  input?.device.stop();
  input = null;
  $("video").hidden = true;
  [$("state").className, $("state").lastChild.textContent] = ["state", seen() ? "Camera off" : "Microphone off"];
}

async function fill_devices() {
  const found = (await devices())[seen() ? "picture" : "sound"], now = $("device").value;
  $("device").replaceChildren(...found.map(({ id, label }) => new Option(label || "Default", id, false, id === now)));
  $("device").parentElement.hidden = found.length < 2;
}

// The frames until it is `enough`, as a clip: samples, or pictures.
async function record(enough) {
  const { frames } = input, pictures = seen();
  if (pictures) frames.length = 0;
  try {
    await new Promise((resolve, reject) => {
      input.fail = reject;
      input.record = () => enough(pictures ? (frames.at(-1).at - frames[0].at) / 1000 : (frames.length * FRAME) / RATE) && resolve();
    });
  } finally {
    if (input) input.record = input.fail = null;
  }
  const all = frames.splice(0), clip = pictures ? all : new Int16Array(all.length * FRAME);
  if (!pictures) all.forEach(({ samples }, k) => clip.set(samples, k * FRAME));
  return clip;
}

// A button that records into a class: while it is held, or what a gesture or the background takes.
function recorder(label, text) {
  const button = make("button", text, "hold"), silent = label === BACKGROUND, held = !silent && !seen();
  const whole = silent ? known.seconds : held ? LONGEST : GESTURE, piece = silent && seen() ? PIECE : whole;
  let down, after;
  async function press() {
    if (busy) return;
    [busy, down, after] = [button, true, 0];
    notice();
    button.classList.add("on");
    try {
      input ??= await open_input();
      if (seen()) for (const count of [3, 2, 1]) (button.textContent = `${count} …`), await wait(0.7);
      for (let done = 0; done < whole && (down || !done); done += piece) {
        const clip = await record((seconds) => {
          button.textContent = held ? `${seconds.toFixed(1)} s` : `${Math.max(0, whole - done - seconds).toFixed(0)} s left`;
          return seconds >= piece || (!down && (held || silent) && (after += 1) >= AFTER);
        });
        if (held && clip.length < 0.4 * RATE) throw new Error("Hold the button while the sound lasts, for half a second at least.");
        await kept(clip, label);
      }
    } catch (error) {
      notice(error);
    }
    busy = null;
    render();
  }
  const release = () => (down = false);
  if (!held) button.onclick = () => (busy === button ? release() : press());
  else {
    button.onpointerdown = (event) => (button.setPointerCapture(event.pointerId), press());
    button.onpointerup = button.onpointercancel = button.onblur = button.onkeyup = release;
    button.oncontextmenu = () => false; // of a long touch
    button.onkeydown = ({ key, repeat }) => [" ", "Enter"].includes(key) && !repeat && press();
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
  const box = make("div", "", "tile"), canvas = make("canvas"), button = make("button"), tools = make("span"), remove = make("button", "Delete"), to = make("select");
  const draw = tried(async () => paint(canvas, (clip ??= await read(await (await ask("GET", place_of(label, name))).blob(), name.endsWith(".mp4")))));
  new IntersectionObserver(([entry], watcher) => entry.isIntersecting && (watcher.disconnect(), draw())).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  button.ariaLabel = `Play ${(box.title = name)}`;
  button.onclick = tried(async () => {
    box.classList.add("playing");
    await (clip instanceof Int16Array ? play(clip, RATE) : show(clip, canvas));
    box.classList.remove("playing");
    draw();
  });
  remove.onclick = tried(async () => (await ask("DELETE", place_of(label, name)), look()));
  to.ariaLabel = "Move to";
  to.append(new Option("Move", ""));
  to.onfocus = () => to.replaceChildren(to.options[0], ...labels().filter((one) => one !== label).map((one) => new Option(one)));
  to.onchange = tried(async () => (await move(label, name, to.value), look()));
  tools.append(to, remove);
  box.append(canvas, button, tools);
  return box;
}

// A file as a clip.
async function read(file, pictures) {
  if (pictures) return cut(file);
  const sound = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await file.arrayBuffer()).catch(() => {
    throw new Error(`${file.name ?? "The file"} holds no sound that this browser can read.`);
  });
  const all = Array.from({ length: sound.numberOfChannels }, (_, k) => sound.getChannelData(k));
  return Int16Array.from(all[0], (_, at) => Math.max(-32768, Math.min(32767, Math.round((32768 * all.reduce((sum, one) => sum + one[at], 0)) / all.length))));
}

async function cut(file) {
  const video = Object.assign(make("video"), { muted: true, src: URL.createObjectURL(file) }), found = [];
  const on = (name) => new Promise((resolve, reject) => {
    video[`on${name}`] = resolve;
    video.onerror = () => reject(new Error(`${file.name ?? "The file"} holds no pictures that this browser can read.`));
  });
  await on("loadeddata");
  const canvas = new OffscreenCanvas(320, 2 * Math.round((160 * video.videoHeight) / video.videoWidth));
  for (let at = 0; at < Math.min(video.duration, LONGEST / 4); at += 1 / PICTURES) {
    video.currentTime = at;
    await on("seeked");
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    found.push({ jpeg: await jpegOf(canvas), at: 1000 * at });
  }
  URL.revokeObjectURL(video.src);
  return found;
}

async function paint(canvas, clip) {
  if (clip instanceof Int16Array) return drawSpectrum(canvas, clip, RATE);
  const { context, width, height } = pencil(canvas);
  for (const [k, share] of [0.2, 0.5, 0.8].entries()) {
    const image = await createImageBitmap(new Blob([clip[Math.floor(share * clip.length)].jpeg])), side = Math.min(image.width, (image.height * width) / 3 / height);
    context.drawImage(image, (image.width - side) / 2, 0, side, image.height, (k * width) / 3, 0, width / 3 - 1, height);
  }
}

// ---- the page as the folder is
const labels = () => [...new Set([...known.classes.map(({ label }) => label), ...named])]; // the background first

function card(label, number) {
  const { list = [], seconds = 0, ...counts } = known.classes.find((one) => one.label === label) ?? {}, silent = label === BACKGROUND;
  const box = make("div", "", "card class"), told = make("p"), fill = make("div", "", "fill"), own = make("div", "", "tiles"), acts = make("div", "", "acts");
  const files = make("label", "Upload"), upload = Object.assign(make("input"), { type: "file", multiple: true, accept: seen() ? "video/*" : "audio/*,video/*" });
  const wanted = silent ? [[Math.round(seconds), known.seconds, "s"]] : Object.entries(known.wanted).map(([what, most]) => [counts[what] ?? 0, most, what]);
  wanted.forEach(([there, most, what], k) => told.append(k ? " · " : "", make("b", there, there >= most ? "met" : ""), ` of ${most} ${what}`));
  box.dataset.label = label;
  box.done = wanted.every(([there, most]) => there >= most);
  box.style.setProperty("--tone", `var(--${silent ? "soft" : `class${number % 8}`})`);
  fill.append(make("i"));
  fill.firstChild.style.width = `${Math.min(100, (100 * wanted[0][0]) / wanted[0][1])}%`;
  for (const { name } of list) {
    const key = place_of(label, name);
    if (!tiles.has(key)) tiles.set(key, tile(label, name));
    own.prepend(tiles.get(key));
  }
  upload.onchange = tried(async () => {
    for (const file of upload.files) await kept(await read(file, seen()), label);
  });
  files.append(upload);
  acts.append(recorder(label, silent ? `Record ${known.seconds} s` : seen() ? "Record a gesture" : "Hold to record"), files);
  box.append(make("h3", label), told, fill, own, acts);
  return box;
}

const mark = (id, done) => $(id).closest("section").classList.toggle("done", done);

function render() {
  if (busy) return;
  const [background, ...rest] = labels().map((label, k) => card(label, k - 1));
  $("background").replaceChildren(background);
  $("classes").replaceChildren(...rest, $("new"));
  $("new").hidden = false; // from here on it does what it says
  $("take").textContent = `Take ${take}`;
  $("hint").textContent = seen() ? "one person's gestures are that person's: let others show them, too" : "some clips of each, then a new take: other day, other distance";
  mark("background", background.done);
  mark("classes", rest.length > 0 && rest.every(({ done }) => done));
  render_training();
}

function render_training() {
  const { running, runs, run, history = [], epochs, error, command } = known.training, done = history.length, newest = history[done - 1];
  $("train").hidden = $("again").hidden = running;
  $("again").hidden ||= !runs.some(({ run }) => run.endsWith(`-${$("kind").value}`));
  $("stop").hidden = $("progress").hidden = !running;
  $("train").disabled = $("again").disabled = known.missing !== "";
  $("why").className = error ? "bad" : "";
  const now = !done ? "It reads the clips." : done === epochs ? "It writes the model and the report."
    : `Epoch ${done} of ${epochs}, ${(100 * newest.accuracy).toFixed(0)} % of what is held out is right, about ${10 * Math.ceil((newest.seconds * (epochs - done)) / 10)} s left.`;
  $("why").textContent = running ? now : error || known.missing || (run && runs.at(-1)?.run === run ? "Done: try it below." : "");
  Object.assign($("progress"), { max: epochs || 1, value: done });
  $("runs").replaceChildren(...[...runs].reverse().map(row));
  mark("train", runs.length > 0);
  mark("runs", runs.some(({ run }) => run === known.installed));
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
    file.onclick = tried(async () => download(name, await (await ask("GET", `/teach/runs/${run}/${name}`)).blob()));
    home.append(file);
  }
  const figures = count ? `${(100 * accuracy).toFixed(0)} % of ${count} held-out pieces right · ${(seconds / 60).toFixed(1)} min` : "";
  item.append(make("b", `Model ${run.split("-")[0]}`), make("span", figures), home, use);
  return item;
}

async function look() {
  known = await state();
  render();
}

const begin = (again) => tried(async () => {
  notice();
  await ask("POST", `/teach/train?recipe=${$("kind").value}&again=${again}`);
  await look();
});
$("train").onclick = begin(0);
$("again").onclick = begin(1);
$("stop").onclick = tried(async () => (await ask("POST", "/teach/stop"), look()));
$("next").onclick = () => ((take += 1), render());
$("place").onchange = () => ((localStorage.place = place()), (take = next_take(known, place())), render());
$("device").onchange = close_input;
$("kind").onchange = () => (close_input(), fill_devices(), render());
$("new").onsubmit = (event) => {
  event.preventDefault();
  if ($("name").value.trim()) named.add($("name").value.trim());
  $("name").value = "";
  render();
};
setInterval(tried(async () => known?.training.running && ((known = await state()), render_training())), 1000);

known = await state().catch((error) => (notice(error), Promise.reject(error)));
$("live").href = `/${location.hash}`;
$("place").value = localStorage.place ?? "home";
take = next_take(known, place());
const any = known.classes.some(({ clips }) => clips), kinds = Object.keys(KINDS).filter((kind) => (kind !== "words" || known.words) && (!any || (kind === "gestures") === known.pictures));
$("kind").replaceChildren(...kinds.map((kind) => new Option(KINDS[kind], kind, false, known.training.run?.endsWith(kind))));
await fill_devices();
render();
