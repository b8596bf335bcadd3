// The microphone's samples in frames of 16 bits at the model's rate, with the greatest of each as the device gave it.
import { Resampler } from "./resample.js";

registerProcessor("frames", class extends AudioWorkletProcessor {
  constructor({ processorOptions: { rate, frame } }) {
    super();
    this.resampler = rate === sampleRate ? null : new Resampler(sampleRate, rate);
    this.frame = new Int16Array(frame);
    this.filled = this.peak = 0;
  }

  process([[samples]]) {
    if (!samples) return true;
    for (const x of samples) this.peak = Math.max(this.peak, Math.abs(x));
    for (const x of this.resampler ? this.resampler.push(samples) : samples) {
      this.frame[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(x * 32768)));
      if (this.filled === this.frame.length) {
        const samples = this.frame;
        this.frame = new Int16Array(samples.length);
        this.port.postMessage({ samples, peak: this.peak, at: Date.now() }, [samples.buffer]);
        this.filled = this.peak = 0;
      }
    }
    return true;
  }
});
