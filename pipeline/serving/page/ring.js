// The newest seconds of what was sent, to be heard and seen again, and the files that people take home.

const SECONDS = 30, BYTES = 8 << 20; // of pictures

export class Ring {
  constructor(rate) {
    Object.assign(this, { rate, pieces: [], bytes: 0 });
  }

  // Samples (Int16Array) or a JPEG (Uint8Array) at `tick`.
  push(tick, piece) {
    this.pieces.push({ tick, piece });
    this.bytes += piece.byteLength;
    while (tick - this.pieces[0].tick > SECONDS * this.rate || this.bytes > BYTES) this.bytes -= this.pieces.shift().piece.byteLength;
  }

  // Whether the second is still there.
  has = (seconds) => this.pieces.length > 0 && seconds * this.rate >= this.pieces[0].tick;

  // The sound between two seconds (Int16Array); silence where none was.
  sound(start, end) {
    const first = Math.max(0, Math.round(start * this.rate)), found = new Int16Array(Math.max(1, Math.round(end * this.rate) - first));
    for (const { tick, piece } of this.pieces) {
      if (!(piece instanceof Int16Array) || tick + piece.length <= first || tick >= first + found.length) continue;
      const cut = piece.subarray(Math.max(0, first - tick), first + found.length - tick);
      found.set(cut, Math.max(0, tick - first));
    }
    return found;
  }

  // The pictures between two seconds: {jpeg, at}, in milliseconds from the first on.
  pictures(start, end) {
    const found = this.pieces.filter(({ tick, piece }) => piece instanceof Uint8Array && tick >= start * this.rate && tick <= end * this.rate);
    return found.map(({ tick, piece }) => ({ jpeg: piece, at: ((tick - found[0].tick) / this.rate) * 1000 }));
  }
}

// Plays samples; a promise that ends with them.
export async function play(samples, rate) {
  const context = new AudioContext(), buffer = context.createBuffer(1, samples.length, rate), source = context.createBufferSource();
  buffer.copyToChannel(Float32Array.from(samples, (x) => x / 32768), 0);
  source.buffer = buffer;
  source.connect(context.destination);
  source.start();
  await new Promise((resolve) => (source.onended = resolve));
  await context.close();
}

// Shows pictures on a canvas; a promise that ends with them.
export async function show(pictures, canvas) {
  const begin = performance.now();
  for (const { jpeg, at } of pictures) {
    const image = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
    await new Promise((resolve) => setTimeout(resolve, begin + at - performance.now()));
    [canvas.width, canvas.height] = [image.width, image.height];
    canvas.getContext("2d").drawImage(image, 0, 0);
    image.close();
  }
}

const time = (seconds) => new Date(Math.round(seconds * 1000)).toISOString().slice(11, 23);
const escaped = (text) => text.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);

// Rows {type, start, ...} as files: what the command line's sinks of these names write.
export const FORMATS = {
  jsonl: (rows) => rows.map((row) => JSON.stringify(row) + "\n").join(""),
  txt: (rows) => events(rows).map(({ start, end, label, score }) => `${start.toFixed(6)}\t${end.toFixed(6)}\t${label} ${score.toFixed(2)}\n`).join(""),
  vtt: (rows) =>
    "WEBVTT\n\n" +
    events(rows).sort((a, b) => a.start - b.start || a.end - b.end)
      .map(({ start, end, label, score }) => `${time(start)} --> ${time(end)}\n${escaped(label)} ${score.toFixed(2)}\n\n`).join(""),
};
const events = (rows) => rows.filter(({ type }) => type === "event");

// Hands a blob over as a file.
export function download(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
