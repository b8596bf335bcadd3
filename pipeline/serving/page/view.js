// What people see of one stream. All texts that are not ours (labels, names) become text nodes.
import { clock, colours, drawMarks, HUES, Spectrogram, TimeLine } from "./draw.js";
import { Nearly } from "./nearly.js";
import { play, show } from "./ring.js";

const BEST = 5, ROWS = 200; // bars; rows of a list
const AROUND = 0.5; // seconds before and behind an event that are heard with it
export const $ = (id) => document.getElementById(id);

export function make(name, text = "", className = "") {
  return Object.assign(document.createElement(name), { textContent: text, className });
}

export class View {
  // `facts`: of the welcome. `ring`: what was captured. `saved`: rows for files, also of streams before.
  constructor(facts, ring, saved) {
    Object.assign(this, { facts, ring, saved, line: new TimeLine(facts), nearly: new Nearly(facts), open: [], events: [], shown: [] });
    this.spectrogram = facts.sound ? new Spectrogram(facts.rate) : null;
    this.scores = new Float32Array(facts.labels.length); // of late
    this.ranges = []; // of numbers
    this.bars = facts.labels.map(() => null);
    this.paint = colours();
    this.spectrogram?.recolour(this.paint);
    $("spectrogram").hidden = $("level").hidden = !facts.sound;
    $("seen").hidden = !facts.picture;
    for (const list of ["bars", "events", "nearly"]) $(list).replaceChildren();
    this.show(Float32Array.from(facts.labels, () => 0));
    this.count();
  }

  seconds = (ticks) => Math.round((ticks * 1000) / this.facts.rate) / 1000;

  sound(tick, samples, peak) {
    this.ring.push(tick, samples);
    this.spectrogram.push(tick, samples);
    const level = peak ? 20 * Math.log10(peak) : -Infinity, clipping = peak >= 0.999;
    $("level").classList.toggle("clipping", clipping);
    $("level").querySelector("i").style.transform = `translateX(${Math.min(0, Math.max(-100, level / 0.6))}%)`;
    $("level").querySelector("output").textContent = clipping ? "clipping" : level < -90 ? "silent" : `${level.toFixed(0)} dBFS`;
  }

  // The number of a label; of a phrase, that of its first word; of "snr above 30 dB", that of "snr (dB)".
  index(label) {
    const { labels } = this.facts, at = labels.indexOf(label);
    return at < 0 ? Math.max(0, labels.findIndex((one) => label.startsWith(`${one.split(" (")[0]} `))) : at;
  }

  answer({ first, rows, fresh, open = [], gap, warnings = [] }) {
    const width = this.facts.labels.length;
    if (rows.length) {
      this.line.push(first, rows);
      this.show(rows.slice(-width));
      for (const one of this.nearly.push(first, rows)) this.fell_short(one);
    }
    const timed = (event) => ({
      label: event.label, start: this.seconds(event.start), end: this.seconds(event.end), peak: this.seconds(event.peak),
      score: Math.round(event.score * 1e4) / 1e4, index: this.index(event.label),
      ...(event.details && { details: event.details }),
    });
    this.open = open.map(timed);
    this.name();
    for (const event of fresh) this.event(timed(event));
    if (gap) this.gap(this.seconds(gap.start), this.seconds(gap.start + gap.length), gap.why);
    for (const warning of warnings) this.remark(warning.time, warning.text, { type: "warning", ...warning });
    document.dispatchEvent(new CustomEvent("steps", { detail: { first, rows } }));
  }

  // A score as a share of its bar; of numbers, between the least and the greatest so far.
  share(k, score) {
    if (this.facts.link !== "linear") return score;
    const range = (this.ranges[k] ??= [score, score]);
    (range[0] = Math.min(range[0], score)), (range[1] = Math.max(range[1], score));
    return (score - range[0]) / (range[1] - range[0] || 1);
  }

  // The newest posteriors (K,) as bars: the best classes, in their own order while they are few.
  show(scores) {
    const { labels, threshold, background } = this.facts;
    scores.forEach((score, k) => (this.scores[k] += 0.15 * (score - this.scores[k])));
    if (labels.length <= BEST) this.shown = labels.map((_, k) => k);
    else {
      const rank = (k) => Math.max(this.scores[k], scores[k]) + (this.shown.includes(k) ? 0.02 : 0);
      this.shown = [...labels.keys()].sort((a, b) => rank(b) - rank(a)).slice(0, BEST).sort((a, b) => a - b);
    }
    const rows = this.shown.map((k) => (this.bars[k] ??= this.bar(k)));
    if (rows.some((row, at) => $("bars").children[at] !== row)) $("bars").replaceChildren(...rows);
    this.shown.forEach((k, at) => {
      const row = rows[at], score = scores[k];
      row.dataset.score = score;
      row.classList.toggle("over", score >= (threshold[k] ?? Infinity) && !background.includes(labels[k]));
      row.querySelector("span").textContent = score.toFixed(2);
      row.querySelector("i").style.clipPath = `inset(0 ${100 - 100 * this.share(k, score)}% 0 0 round 1rem)`;
    });
  }

  tone = (k) => (this.facts.background.includes(this.facts.labels[k]) ? "var(--soft)" : `var(--class${k % HUES})`);

  bar(k) {
    const { labels, threshold } = this.facts, row = make("li"), track = make("div");
    row.dataset.label = labels[k];
    row.style.setProperty("--tone", this.tone(k));
    track.append(make("i"));
    if (threshold[k] !== null) {
      const mark = make("s");
      mark.style.left = `${100 * threshold[k]}%`;
      mark.title = `threshold ${threshold[k].toFixed(2)}`;
      track.append(mark);
    }
    row.append(make("b", labels[k]), make("span"), track);
    return row;
  }

  // What is open now, in large letters.
  name(otherwise = this.facts.sound ? "Listening" : "Watching") {
    const best = [...this.open].sort((a, b) => b.score - a.score).slice(0, 2), text = best.map(({ label }) => label).join(", ") || otherwise;
    if ($("now").textContent !== text) $("now").textContent = text;
    $("now").classList.toggle("calm", !best.length);
  }

  event(event) {
    const { index, ...row } = event, again = make("button", this.facts.sound ? "Play" : "Show", "quiet");
    this.line.events.push(event);
    this.saved.push({ type: "event", stream: "page", ...row });
    const item = this.row("events", event.start, event.details ? `${event.label}: ${event.details}` : event.label, index);
    item.append(make("span", `${(event.end - event.start).toFixed(2)} s`), make("span", event.score.toFixed(2), "end"), again);
    again.onclick = () => this.again(event, again);
    this.events.unshift({ event, again });
    this.count();
    this.teach?.event(item, row, () => this.cut(event.start - AROUND, event.end + AROUND));
  }

  // The sound (or the pictures) between two seconds.
  cut(start, end) {
    return this.facts.sound ? this.ring.sound(start, end) : this.ring.pictures(start, end);
  }

  async again(event, button) {
    button.disabled = true;
    const span = [event.start - AROUND, event.end + AROUND];
    $("again").hidden = !this.facts.picture;
    await Promise.all([
      this.facts.sound && play(this.ring.sound(...span), this.facts.rate),
      this.facts.picture && show(this.ring.pictures(...span), $("again")),
    ]);
    $("again").hidden = true;
    button.disabled = !this.ring.has(event.start);
  }

  play_newest() {
    this.events[0]?.again.click();
  }

  fell_short({ label, step, score, why }) {
    const item = this.row("nearly", ((step + 1) * this.facts.hop) / this.facts.rate, label, this.facts.labels.indexOf(label));
    item.append(make("span", score.toFixed(2), "end"), make("span", why, "why"));
  }

  gap(start, end, why) {
    this.line.gaps.push({ start, end });
    this.remark(start, `${(end - start).toFixed(1)} s missing: ${why}`, { type: "gap", start, length: end - start, why });
  }

  // A connection that was lost is there again.
  mark(seconds, text) {
    this.line.marks.push({ start: seconds });
    this.remark(seconds, text);
  }

  remark(seconds, text, saved) {
    const item = this.row("events", seconds);
    item.classList.add("gap");
    item.append(make("span", text));
    if (saved) this.saved.push({ stream: "page", ...saved });
  }

  row(list, seconds, label, index) {
    const item = make("li");
    item.append(make("time", clock(seconds, 1)));
    if (label !== undefined) {
      item.append(make("i"), make("b", label));
      item.style.setProperty("--tone", this.tone(index));
    }
    $(list).prepend(item);
    while ($(list).children.length > ROWS) $(list).lastChild.remove();
    return item;
  }

  count() {
    const found = this.saved.filter(({ type }) => type === "event").length;
    $("count").textContent = found || "";
    $("save").hidden = !found;
  }

  // What can not be heard again any more.
  age() {
    while (this.events.length && !this.ring.has(this.events.at(-1).event.start)) this.events.pop().again.disabled = true;
  }

  recolour() {
    this.paint = colours();
    this.spectrogram?.recolour(this.paint);
  }

  // The canvases, `now` in seconds at their right edge.
  draw(now) {
    this.spectrogram?.draw($("spectrogram"), now);
    this.line.draw($("line"), now, this.shown, this.open, this.paint);
    drawMarks($("marks"), this.line, now, this.paint);
  }
}
