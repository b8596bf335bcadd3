// Which tick of a stream was captured when, by the least late of the newest frames; and what went missing in between.

const KEPT = 3000, NEWEST = 500; // milliseconds
const LOST = 300; // milliseconds of sound that must be missing

export class Clock {
  constructor(rate) {
    this.perMillisecond = rate / 1000;
    this.notes = [];
  }

  // A frame that ended with `tick` arrived `at` milliseconds. The ticks that were lost before it: mostly 0.
  note(tick, at) {
    this.notes.push({ at, start: at - tick / this.perMillisecond });
    while (at - this.notes[0].at > KEPT) this.notes.shift();
    const least = (notes) => Math.min(...notes.map((note) => note.start));
    const older = this.notes.filter((note) => at - note.at > NEWEST);
    this.start = least(this.notes);
    const late = older.length ? least(this.notes.slice(older.length)) - least(older) : 0;
    if (late < LOST) return 0;
    this.notes = [];
    return Math.round(late * this.perMillisecond);
  }

  tickAt = (at) => (at - this.start) * this.perMillisecond;
  timeOf = (tick) => this.start + tick / this.perMillisecond;
}
