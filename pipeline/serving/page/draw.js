// Canvases: a spectrogram and a time line that move, and pictures of whole clips. Colours are the style sheet's.

export const SPAN = 20; // seconds that are seen
const COLUMNS = 40; // of the spectrogram a second
const WINDOW = 1024, BANDS = 72, LOWEST = 60, FLOOR = -80; // samples; hertz; dB
export const HUES = 8; // of classes, in turn

// Colours of classes and of the rest, as they are now, in light or dark.
export function colours() {
  const style = getComputedStyle(document.documentElement), of = (name) => style.getPropertyValue(`--${name}`).trim();
  const heat = of("heat").split(" ").map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const map = Uint32Array.from({ length: 256 }, (_, value) => {
    const place = (value / 255) * (heat.length - 1), low = Math.min(heat.length - 2, Math.floor(place));
    const [r, g, b] = [0, 1, 2].map((c) => heat[low][c] + (place - low) * (heat[low + 1][c] - heat[low][c]));
    return (255 << 24) | (b << 16) | (g << 8) | r;
  });
  return { map, ink: of("ink"), soft: of("soft"), line: of("line"), classes: Array.from({ length: HUES }, (_, k) => of(`class${k}`)) };
}

// Makes a canvas as fine as the screen; its pencil, in units of the page, width and height.
export function pencil(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas, fine = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * fine) || canvas.height !== Math.round(height * fine))
    [canvas.width, canvas.height] = [Math.round(width * fine), Math.round(height * fine)];
  const context = canvas.getContext("2d");
  context.setTransform(fine, 0, 0, fine, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

// Power of the bands, from low to high, of one window of samples.
class Spectrum {
  constructor(rate) {
    const hertz = (band) => LOWEST * (rate / 2 / LOWEST) ** (band / BANDS);
    this.edges = Array.from({ length: BANDS + 1 }, (_, band) => (hertz(band) * WINDOW) / rate);
    this.window = Float32Array.from({ length: WINDOW }, (_, k) => 0.5 - 0.5 * Math.cos((2 * Math.PI * k) / WINDOW));
    [this.re, this.im] = [new Float32Array(WINDOW), new Float32Array(WINDOW)];
    this.turn = Float32Array.from({ length: WINDOW / 2 }, (_, k) => Math.sin((-2 * Math.PI * k) / WINDOW));
  }

  // Shares 0 to 1 of the way from FLOOR to full scale, into `shares`.
  of(samples, start, shares) {
    const { re, im } = this;
    im.fill(0);
    for (let k = 0; k < WINDOW; k++) {
      let place = 0;
      for (let bit = 1, other = WINDOW >> 1; other; bit <<= 1, other >>= 1) if (k & bit) place |= other;
      re[place] = ((samples[start + k] ?? 0) / 32768) * this.window[k];
    }
    for (let size = 2; size <= WINDOW; size *= 2)
      for (let k = 0, half = size / 2, skip = WINDOW / size; k < half; k++) {
        const sin = this.turn[k * skip], cos = k * skip < WINDOW / 4 ? -this.turn[k * skip + WINDOW / 4] : this.turn[k * skip - WINDOW / 4];
        for (let at = k; at < WINDOW; at += size) {
          const b = at + half, x = re[b] * cos - im[b] * sin, y = re[b] * sin + im[b] * cos;
          (re[b] = re[at] - x), (im[b] = im[at] - y), (re[at] += x), (im[at] += y);
        }
      }
    for (let band = 0; band < BANDS; band++) {
      const low = Math.floor(this.edges[band]), high = Math.max(low + 1, Math.floor(this.edges[band + 1]));
      let power = 0;
      for (let k = low; k < high; k++) power = Math.max(power, re[k] ** 2 + im[k] ** 2);
      const level = 10 * Math.log10(power * (4 / WINDOW) ** 2 + 1e-12);
      shares[band] = Math.max(0, Math.min(1, 1 - level / FLOOR));
    }
    return shares;
  }
}

// The spectrogram of the newest seconds: columns in a ring.
export class Spectrogram {
  constructor(rate) {
    Object.assign(this, { rate, hop: rate / COLUMNS, spectrum: new Spectrum(rate), tail: new Int16Array(0), column: 0 });
    this.count = (SPAN + 1) * COLUMNS;
    this.shares = Array.from({ length: this.count }, () => null);
    this.ring = new OffscreenCanvas(this.count, BANDS);
    this.paper = this.ring.getContext("2d");
    this.image = this.paper.createImageData(1, BANDS);
    this.words = new Uint32Array(this.image.data.buffer);
  }

  // Samples from `tick` on; what is missing since the last ones stays blank.
  push(tick, samples) {
    const known = this.end === tick ? this.tail : new Int16Array(0), begin = tick - known.length;
    const all = new Int16Array(known.length + samples.length);
    all.set(known);
    all.set(samples, known.length);
    this.end = tick + samples.length;
    const next = Math.ceil((begin + WINDOW / 2) / this.hop);
    for (; this.column < Math.max(next, 0) && next - this.column < this.count; this.column++) this.paint(this.column, null);
    this.column = Math.max(this.column, next);
    for (; ; this.column++) {
      const start = Math.round(this.column * this.hop) - WINDOW / 2 - begin;
      if (start + WINDOW > all.length) break;
      this.paint(this.column, this.spectrum.of(all, start, new Float32Array(BANDS)));
    }
    this.tail = all.slice(-WINDOW - Math.ceil(this.hop));
  }

  paint(column, shares) {
    const place = column % this.count;
    this.shares[place] = shares;
    if (!shares || !this.map) return this.paper.clearRect(place, 0, 1, BANDS);
    for (let band = 0; band < BANDS; band++) this.words[BANDS - 1 - band] = this.map[Math.round(255 * shares[band])];
    this.paper.putImageData(this.image, place, 0);
  }

  // The colours are other ones.
  recolour({ map }) {
    this.map = map;
    this.shares.forEach((shares, place) => shares && this.paint(place, shares));
  }

  // The seconds up to `now` over the whole canvas.
  draw(canvas, now) {
    const { context, width, height } = pencil(canvas), first = (now - SPAN) * COLUMNS, scale = width / (SPAN * COLUMNS);
    for (let at = Math.max(0, Math.floor(first)); at < Math.min(this.column, first + SPAN * COLUMNS + 1); ) {
      const place = at % this.count, many = Math.min(this.count - place, this.column - at, Math.ceil(first + SPAN * COLUMNS + 1) - at);
      context.drawImage(this.ring, place, 0, many, BANDS, (at - first) * scale, 0, many * scale + 0.5, height);
      at += many;
    }
  }
}

// Posteriors, events, gaps and reconnections of the newest seconds.
export class TimeLine {
  constructor(facts) {
    Object.assign(this, { facts, step: facts.hop / facts.rate, chunks: [], events: [], gaps: [], marks: [] });
  }

  push(first, rows) {
    this.chunks.push({ start: (first + 1) * this.step, rows, count: rows.length / this.facts.labels.length });
    this.forget((first + 1) * this.step - SPAN - 2); // also while the tab is hidden, and nothing is drawn
  }

  forget(before) {
    for (const name of ["chunks", "events", "gaps", "marks"])
      while (this[name].length && (this[name][0].end ?? this[name][0].start + (this[name][0].count ?? 0) * this.step) < before) this[name].shift();
  }

  // `shown`: numbers of the classes; `open`: events that have not ended, in seconds.
  draw(canvas, now, shown, open, paint) {
    this.forget(now - SPAN - 1);
    const { context, width, height } = pencil(canvas), lane = 10, low = height - lane - 6;
    const x = (seconds) => ((seconds - now) / SPAN + 1) * width, y = (score) => low - score * (low - 2);
    context.fillStyle = context.strokeStyle = paint.line;
    for (const level of [0, 0.5, 1]) context.fillRect(0, Math.round(y(level)), width, 1);
    for (const k of new Set([...shown, ...this.events.map(({ index }) => index)])) {
      const colour = this.colour(k, paint), high = this.facts.threshold[k] ?? Infinity, [least, range] = this.range(k);
      for (const strong of [false, true]) {
        context.beginPath();
        let last = -1, above = false;
        for (const { start, rows, count } of this.chunks)
          for (let step = 0; step < count; step++) {
            const time = start + step * this.step, score = (rows[step * this.facts.labels.length + k] - least) / range;
            if (strong && score < high && !above) { last = time; continue; }
            if (time - last > 1.5 * this.step || (strong && !above)) context.moveTo(x(time), y(score));
            else context.lineTo(x(time), y(score));
            (last = time), (above = score >= high);
          }
        Object.assign(context, { strokeStyle: colour, lineWidth: strong ? 2.25 : 1.25, lineJoin: "round", globalAlpha: strong ? 1 : 0.5 });
        context.stroke();
      }
    }
    context.globalAlpha = 1;
    for (const { index, start, end } of [...this.events, ...open]) {
      context.fillStyle = this.colour(index, paint);
      context.beginPath();
      context.roundRect(x(start), height - lane, Math.max(3, x(end) - x(start)), lane - 3, 3);
      context.fill();
    }
    return x;
  }

  // Where a label's scores begin, and how far they reach: numbers, as far as they are drawn.
  range(k) {
    if (this.facts.link !== "linear") return [0, 1];
    const K = this.facts.labels.length, all = this.chunks.flatMap(({ rows }) => [...rows].filter((_, at) => at % K === k));
    const least = all.reduce((a, b) => Math.min(a, b), Infinity);
    return [least, all.reduce((a, b) => Math.max(a, b), -Infinity) - least || 1];
  }

  colour(index, paint) {
    return this.facts.background.includes(this.facts.labels[index]) ? paint.soft : paint.classes[index % HUES];
  }
}

// Gaps and reconnections over everything else, and the seconds below.
export function drawMarks(canvas, { gaps, marks }, now, paint) {
  const { context, width, height } = pencil(canvas), x = (seconds) => ((seconds - now) / SPAN + 1) * width;
  const bottom = height - 18;
  context.setLineDash([]);
  Object.assign(context, { font: "11px system-ui, sans-serif", fillStyle: paint.soft, textAlign: "center" });
  for (let at = Math.max(0, Math.ceil((now - SPAN) / 5) * 5); at <= now; at += 5)
    if (x(at) > 14 && x(at) < width - 14) context.fillText(clock(at), x(at), height - 4);
  for (const { start, end } of gaps) {
    const [left, right] = [Math.max(-4, x(start)), Math.max(x(end), x(start) + 2)];
    context.save();
    context.beginPath();
    context.rect(left, 0, right - left, bottom);
    context.clip();
    Object.assign(context, { strokeStyle: paint.soft, globalAlpha: 0.45, lineWidth: 1 });
    context.beginPath();
    for (let at = Math.floor(left / 7) * 7 - bottom; at < right; at += 7) context.moveTo(at, bottom), context.lineTo(at + bottom, 0);
    context.stroke();
    context.restore();
  }
  Object.assign(context, { strokeStyle: paint.ink, lineWidth: 1 });
  context.setLineDash([3, 3]);
  context.beginPath();
  for (const { start } of marks) context.moveTo(Math.round(x(start)) + 0.5, 0), context.lineTo(Math.round(x(start)) + 0.5, bottom);
  context.stroke();
}

// Seconds as minutes and seconds.
export function clock(seconds, digits = 0) {
  const whole = Math.max(0, seconds), rest = (whole % 60).toFixed(digits);
  return `${Math.floor(whole / 60)}:${rest.padStart(digits ? digits + 3 : 2, "0")}`;
}

// A whole clip as a spectrogram.
export function drawSpectrum(canvas, samples, rate) {
  const { width, height, context } = pencil(canvas), { map } = colours(), spectrum = new Spectrum(rate), columns = Math.round(width);
  const image = new ImageData(columns, BANDS), words = new Uint32Array(image.data.buffer), shares = new Float32Array(BANDS);
  for (let column = 0; column < columns; column++) {
    spectrum.of(samples, Math.round(((column + 0.5) / columns) * samples.length - WINDOW / 2), shares);
    for (let band = 0; band < BANDS; band++) words[(BANDS - 1 - band) * columns + column] = map[Math.round(255 * shares[band])];
  }
  const small = new OffscreenCanvas(columns, BANDS);
  small.getContext("2d").putImageData(image, 0, 0);
  context.drawImage(small, 0, 0, width, height);
}
