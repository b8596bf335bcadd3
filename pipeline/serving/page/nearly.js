// What was nearly an event, and why it was not. The events themselves are the server's.

const WORTH = 0.5, OVER = 0.25; // of the threshold: lower peaks are not worth a word; a peak is over below that

export class Nearly {
  // `facts`: the welcome's thresholds and times, in steps.
  constructor(facts) {
    Object.assign(this, { facts, peaks: facts.labels.map(() => null), free: facts.labels.map(() => 0) });
  }

  // Posteriors from step `first` on, row by row; the peaks that are over: {label, step, score, why}.
  push(first, rows) {
    const { labels, threshold, release } = this.facts, K = labels.length, found = [];
    for (let step = first, at = 0; at < rows.length; step++, at += K)
      for (let k = 0; k < K; k++) {
        if (threshold[k] === null) continue;
        const score = rows[at + k], peak = this.peaks[k], low = Math.min(release[k], (peak ? OVER : WORTH) * threshold[k]);
        if (score >= low) {
          const now = peak ?? (this.peaks[k] = { step, score: 0, open: null, longest: 0, early: false });
          if (score > now.score) Object.assign(now, { score, step });
          if (score >= threshold[k] && now.open === null) {
            if (step >= this.free[k]) now.open = step;
            else now.early = true;
          }
          if (score < release[k]) this.shut(now, step);
        } else if (peak) {
          this.shut(peak, step);
          this.peaks[k] = null;
          const why = this.why(peak, k);
          if (why) found.push({ label: labels[k], step: peak.step, score: peak.score, why });
          else this.free[k] = step + this.facts.refractory;
        }
      }
    return found;
  }

  shut(peak, step) {
    if (peak.open !== null) peak.longest = Math.max(peak.longest, step - peak.open);
    peak.open = null;
  }

  why({ score, longest, early }, k) {
    const { threshold, minimum, hop, rate, refractory } = this.facts, seconds = (steps) => `${((steps * hop) / rate).toFixed(2)} s`;
    if (score < threshold[k]) return `below its threshold ${threshold[k].toFixed(2)}`;
    if (longest && longest < minimum) return `${seconds(longest)}, shorter than ${seconds(minimum)}`;
    return longest || !early ? "" : `within ${seconds(refractory)} of the one before`;
  }
}
