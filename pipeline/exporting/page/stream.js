// Streams of sound through an exported model in onnxruntime-web: the same blocks and events as rivulet_runtime.py.

export class Stream {
  // `ort`: onnxruntime-web. `card`: model.json.
  constructor(ort, session, card) {
    Object.assign(this, { ort, session, card });
    this.decoder = new Decoder(card);
    this.start = 1; // the states begin anew, whatever they hold
    this.states = card.states.map(({ shape, type }) => this.tensor(type, [1, ...shape]));
    this.waiting = new Float32Array(0);
    this.ticks = this.steps = 0; // received; answered
    this.skip = card.delay; // steps still to drop: they answer for the time before the start
    this.end = Infinity; // number of steps, once known
    this.last = []; // the posteriors of the last step
  }

  tensor(type, shape) {
    const size = shape.reduce((a, b) => a * b, 1);
    const kinds = { float32: Float32Array, float64: Float64Array, int32: Int32Array, int64: BigInt64Array, bool: Uint8Array };
    return new this.ort.Tensor(type, new kinds[type](size), shape);
  }

  // Takes samples (Float32Array, -1 to 1); the events that are over.
  async push(samples) {
    this.ticks += samples.length;
    return this.advance(samples);
  }

  // Answers for what is left, and ends the open events.
  async close() {
    const { hop, block } = this.card;
    this.end = Math.ceil(this.ticks / hop);
    const wanted = Math.ceil(((this.end - this.steps + this.skip) * hop) / block) * block;
    return [...(await this.advance(new Float32Array(wanted - this.waiting.length))), ...this.decoder.close()];
  }

  async advance(samples) {
    const { block, labels } = this.card, events = [];
    const all = new Float32Array(this.waiting.length + samples.length);
    all.set(this.waiting);
    all.set(samples, this.waiting.length);
    let at = 0;
    for (; at + block <= all.length; at += block) {
      const y = await this.answer(all.slice(at, at + block));
      for (let k = 0; k < y.length; k += labels.length) {
        if (this.skip) this.skip--;
        else if (this.steps < this.end) {
          this.steps++;
          this.last = y.subarray(k, k + labels.length);
          events.push(...this.decoder.step(this.last));
        }
      }
    }
    this.waiting = all.slice(at);
    return events;
  }

  // The posteriors of a block, one step after another.
  async answer(samples) {
    const names = this.session.inputNames;
    const given = [new this.ort.Tensor("float32", samples, [1, samples.length]),
      new this.ort.Tensor("float32", [this.start], [1, 1]), ...this.states];
    const found = await this.session.run(Object.fromEntries(names.map((name, k) => [name, given[k]])));
    const [y, ...states] = this.session.outputNames.map((name) => found[name]);
    const good = y.data.every(Number.isFinite);
    this.start = good ? 0 : 1;
    this.states = states;
    return good ? y.data : new Float32Array(y.data.length);
  }
}

// From posteriors to events, each label for itself: see rivulet_runtime.py.
export class Decoder {
  constructor({ labels, hop, spec, events }) {
    Object.assign(this, { labels, seconds: (step) => Math.round((step * hop * 1000) / spec.sound) / 1000 }, events);
    [this.high, this.low] = [events.high, events.low].map((levels) => Float32Array.from(levels));
    this.now = 0;
    this.open = labels.map(() => null);
    this.free = labels.map(() => 0);
  }

  step(scores) {
    const events = this.labels.flatMap((_, k) => this.follow(k, scores[k]));
    this.now++;
    return events;
  }

  follow(k, score) {
    const event = this.open[k], now = this.now;
    if (!event) {
      if (score >= this.high[k] && now >= this.free[k]) this.open[k] = { start: now, score, peak: now, end: null };
      return [];
    }
    if (event.end === null && score < this.low[k]) event.end = now;
    else if (event.end === null || score >= this.high[k]) {
      event.end = null;
      if (score > event.score) Object.assign(event, { score, peak: now });
    }
    return event.end !== null && now + 1 - event.end > this.merge ? this.finish(k) : [];
  }

  finish(k) {
    const { start, score, peak, end } = this.open[k];
    this.open[k] = null;
    if (end - start < this.minimum) return [];
    this.free[k] = end + this.refractory;
    return [{ label: this.labels[k], start: this.seconds(start), end: this.seconds(end), peak: this.seconds(peak), score }];
  }

  close() {
    const open = this.open.flatMap((event, k) => (event ? [k] : []));
    for (const k of open) this.open[k].end ??= this.now;
    open.sort((a, b) => this.open[a].end - this.open[b].end || a - b);
    return open.flatMap((k) => this.finish(k));
  }
}
