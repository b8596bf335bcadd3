// Sound at another rate, piece by piece: a windowed sinc whose phase and past samples are carried from piece to piece.

const PHASES = 512; // between two samples; coefficients in between are interpolated
const PASSED = 0.913; // of the lower Nyquist frequency: all up to there passes, nothing beyond 1
const DECIBELS = 90; // by which the rest is lowered

export class Resampler {
  // From `from` Hz to `to` Hz, both integers. It answers late by half the window, about 4 ms.
  constructor(from, to) {
    const common = gcd(from, to);
    [this.from, this.to] = [from / common, to / common];
    const nyquist = Math.min(1, to / from), middle = (nyquist * (1 + PASSED)) / 2;
    const taps = (DECIBELS - 8) / (2.285 * Math.PI * nyquist * (1 - PASSED)); // Kaiser's formula
    this.half = Math.ceil(taps / 2);
    this.table = table(this.half, middle, 0.1102 * (DECIBELS - 8.7));
    this.past = new Float32Array(2 * this.half - 1);
    this.phase = 0; // of the next answer: it lies phase / to samples behind the middle of the window
  }

  // Samples (Float32Array) of any number; those at the other rate that can be told by now.
  push(samples) {
    const { half, table, from, to } = this, taps = 2 * half;
    const all = new Float32Array(this.past.length + samples.length);
    all.set(this.past);
    all.set(samples, this.past.length);
    const answers = [];
    let at = 0;
    while (at + taps <= all.length) {
      const place = (this.phase / to) * PHASES, row = Math.floor(place), share = place - row;
      let low = 0, high = 0;
      for (let k = 0, c = row * taps; k < taps; k++, c++) {
        low += all[at + k] * table[c];
        high += all[at + k] * table[c + taps];
      }
      answers.push(low + share * (high - low));
      this.phase += from;
      at += Math.floor(this.phase / to);
      this.phase %= to;
    }
    this.past = all.slice(at);
    return Float32Array.from(answers);
  }
}

const gcd = (a, b) => (b ? gcd(b, a % b) : a);

// Rows of coefficients, one for each phase and one more.
function table(half, cutoff, beta) {
  const taps = 2 * half, rows = new Float32Array((PHASES + 1) * taps), whole = bessel(beta);
  for (let row = 0; row <= PHASES; row++)
    for (let k = 0; k < taps; k++) {
      const x = k - (half - 1) - row / PHASES, edge = x / half;
      const sinc = x ? Math.sin(Math.PI * cutoff * x) / (Math.PI * x) : cutoff;
      rows[row * taps + k] = Math.abs(edge) < 1 ? (sinc * bessel(beta * Math.sqrt(1 - edge * edge))) / whole : 0;
    }
  return rows;
}

// Modified Bessel function of order 0, for Kaiser's window.
function bessel(x) {
  let sum = 1, term = 1;
  for (let k = 1; term > 1e-12 * sum; k++) sum += term *= (x / (2 * k)) ** 2;
  return sum;
}
