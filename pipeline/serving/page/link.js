// One stream to the server (protocol rivulet.1). It keeps the newest seal of what the server remembers and every frame
// that came after it, so that any server with the same key goes on from there, bit for bit.

export const LIMITS = {
  seconds: 60, bytes: 2 << 20, // of frames that are kept; the oldest beyond are given up and become a gap
  shortest: 200, longest: 5000, // milliseconds until the next try
  silence: 8000, // milliseconds without a word from the server
};
const SOUND = 1, PICTURE = 2, GAP = 3, HEAD = 16;
const BEHIND = 1 << 20; // bytes in the socket beyond which frames wait
const TOO_LARGE = "A frame was too large for the server: choose another device.";
export const FINAL = {
  4400: "The server did not understand this page: reload it.",
  4401: "This address lacks the server's token: open the one that the server printed.",
  4404: "There is no model yet: teach one first.",
  4409: "Another tab took this session over.",
  1009: TOO_LARGE,
  4413: TOO_LARGE,
  4422: "Sound got lost on its way: reload this page.",
};

export class Link {
  // `tell` has a function for each of: state(name, detail), welcome(facts, restarted), answer(answer), sent(bytes).
  constructor(token, tell, kept = {}) {
    Object.assign(this, { token, tell, seal: null, tick: 0, next: 0 }, kept);
    this.frames = []; // {bytes, tick, end, why}, in the order in which they are sent
    this.bytes = this.sent = this.tries = 0;
    this.told = new Set(); // events, by label and start
    this.facts = this.socket = null;
    this.timer = setInterval(() => this.beat(), 2000);
    this.open();
  }

  open() {
    const socket = (this.socket = new WebSocket(`${location.origin.replace("http", "ws")}/v1/stream`));
    this.heard = performance.now();
    this.ready = false;
    this.state(this.facts ? "Reconnecting" : "Connecting");
    socket.onopen = () => {
      const resume = this.seal ? { resume: this.seal, answered: this.next } : {};
      this.say({ type: "hello", token: this.token, tick: this.frames.find(({ tick, end }) => end > tick)?.tick ?? this.tick, ...resume });
    };
    socket.onmessage = ({ data }) => {
      this.heard = performance.now();
      const message = JSON.parse(data);
      this[`on_${message.type}`]?.(message);
    };
    socket.onclose = ({ code, reason }) => this.closed(code, reason);
  }

  say(message) {
    this.socket.send(JSON.stringify(message));
  }

  state(name, detail) {
    this.tell.state((this.now = name), detail);
  }

  on_welcome(facts) {
    const restarted = this.seal && !facts.resumed, told = this.next * (this.facts ?? facts).hop;
    Object.assign(this, { facts, ready: true, tries: 0, seal: facts.seal, ack: facts.from, expected: facts.from });
    if (restarted) this.begun = told; // events until then are known from the session before
    if (!facts.resumed) this.next = Math.max(Math.ceil(told / facts.hop), facts.first); // the model may have other steps
    this.forget(facts.from);
    this.tell.welcome(facts, restarted);
    if (this.socket === null) return; // the page began anew
    this.sent = 0;
    this.lost = false; // something was, as the server hears in a gap
    this.pump();
    this.state("live");
  }

  on_answer(answer) {
    this.ack = answer.ack;
    const { labels, hop } = this.facts, width = labels.length;
    const all = new Float32Array(Uint8Array.from(atob(answer.posteriors ?? ""), (c) => c.charCodeAt(0)).buffer);
    const known = Math.max(0, Math.min(all.length / width, this.next - answer.first));
    answer.rows = all.subarray(known * width);
    answer.first += known;
    answer.fresh = answer.events.filter((event) => {
      const name = `${event.label} ${event.start}`, is_new = !this.told.has(name) && event.end > (this.begun ?? 0);
      this.told.add(name);
      return is_new;
    });
    this.next = Math.max(this.next, answer.next);
    if (this.told.size > 999) this.told = new Set([...this.told].slice(-99));
    this.tell.answer(answer);
    this.pump();
  }

  on_seal({ seal, tick }) {
    this.seal = seal;
    this.forget(tick);
    this.tell.seal({ seal, tick: this.tick, next: this.next });
  }

  on_pong({ time }) {
    this.trip = performance.now() - time;
  }

  // Samples (Int16Array) from `tick` on. `why`: what happened since the last ones, if their end is not there.
  sound(tick, samples, why) {
    this.add(SOUND, 0, tick, samples.length, new Uint8Array(samples.buffer), why);
  }

  // A JPEG (Uint8Array) that stands for `length` ticks.
  picture(tick, length, jpeg, why) {
    this.add(PICTURE, 0, tick, length, jpeg, why);
  }

  // The camera alone is lost.
  blind(tick, why) {
    this.add(GAP, 2, tick, 0, new TextEncoder().encode(why));
  }

  add(kind, flags, tick, length, payload, why) {
    const bytes = packed(kind, flags, tick, length, payload);
    this.frames.push({ bytes, tick, end: tick + length, why });
    this.tick = Math.max(this.tick, tick + length);
    this.bytes += bytes.length;
    while (this.bytes > LIMITS.bytes || this.tick - this.frames[0].end > LIMITS.seconds * this.facts.rate) {
      this.drop();
      this.frames[0].why = this.ready ? "the connection is too slow" : "the connection was away for too long";
    }
    this.pump();
  }

  drop() {
    this.bytes -= this.frames.shift().bytes.length;
    this.sent = Math.max(0, this.sent - 1);
  }

  // What ends by `tick` is not needed any more, but the picture beside the sound that is seen then, and later ones.
  forget(tick) {
    const next = this.frames.findIndex((frame) => frame.end > Math.max(tick, frame.tick));
    const old = this.frames.splice(0, next < 0 ? this.frames.length : next), beside = old.filter((frame) => frame.end === frame.tick);
    const seen = beside.findLast((frame) => frame.tick <= tick), kept = beside.filter((frame) => frame === seen || frame.tick > tick);
    this.frames.unshift(...kept);
    this.sent = Math.max(0, this.sent - old.length + kept.length);
    this.bytes = this.frames.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }

  // Sends what may be sent by now.
  pump() {
    if (!this.ready || this.socket.readyState !== WebSocket.OPEN) return;
    for (; this.sent < this.frames.length && this.socket.bufferedAmount < BEHIND; this.sent++) {
      const { bytes, tick, end, why } = this.frames[this.sent];
      if (tick > this.expected && end > tick) {
        this.send(packed(GAP, 0, this.expected, tick - this.expected, new TextEncoder().encode(why ?? "unknown")));
        this.expected = tick;
        this.lost = true;
      }
      if (end > this.ack + this.facts.credit) break;
      this.send(bytes);
      this.expected = Math.max(this.expected, end);
    }
    if (this.ending && this.sent === this.frames.length && !this.over) this.say({ type: "end" }), (this.over = true);
  }

  send(bytes) {
    this.socket.send(bytes);
    this.tell.sent(bytes);
  }

  // Seconds of frames that were not sent yet.
  get backlog() {
    return this.facts && this.sent < this.frames.length ? (this.tick - this.frames[this.sent].tick) / this.facts.rate : 0;
  }

  beat() {
    if (this.now === "waiting") return;
    if (performance.now() - this.heard > LIMITS.silence) this.closed(1006, "The server does not answer.");
    else if (this.ready) this.say({ type: "ping", time: performance.now() });
  }

  closed(code, reason) {
    this.drop_socket();
    if (code === 1000) return this.close("ended");
    if (FINAL[code]) return this.close("refused", { code, sentence: FINAL[code] });
    const most = Math.min(LIMITS.longest, LIMITS.shortest * 2 ** this.tries++);
    const delay = code === 4429 ? 5000 : most * (0.5 + Math.random() / 2);
    this.state("waiting", { code, reason, until: performance.now() + delay });
    this.retry = setTimeout(() => this.open(), delay);
  }

  drop_socket() {
    Object.assign(this.socket ?? {}, { onopen: null, onmessage: null, onclose: null });
    this.socket?.close();
    this.ready = this.over = false;
  }

  // All that was sent shall be answered; then it closes by itself.
  end() {
    this.ending = true;
    this.pump();
  }

  close(name = "ended", detail) {
    clearInterval(this.timer);
    clearTimeout(this.retry);
    this.drop_socket();
    this.socket = null;
    this.state(name, detail);
  }
}

// A frame of the protocol: 16 bytes of head, and the payload.
function packed(kind, flags, tick, length, payload) {
  const bytes = new Uint8Array(HEAD + payload.length), view = new DataView(bytes.buffer);
  view.setUint8(0, kind);
  view.setUint8(1, flags);
  view.setUint32(4, length, true);
  view.setBigUint64(8, BigInt(tick), true);
  bytes.set(payload, HEAD);
  return bytes;
}
