"""How old is a live answer? A stream over UDP on this machine at 30 pictures a second, from its sender to its labels.

    python benchmarks/live.py [SECONDS]

A second process sends H.264 in MPEG-TS with FFmpeg's library (x264, zerolatency), 640x480. Each picture carries the
time at which it was made as a row of black and white squares, so two ages are known of each answer: since the picture
came out of the network (what `source=url` reports), and since the sender made it, encoding, network and decoding
included. The model is a ConvLSTM on 64x64 at 30 a second, one step at a time, one thread. Waiting pictures: how many
the capture held when one was taken (more than one newest picture is never kept).
"""

import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import av
import numpy as np
import torch
from table import report  # beside this file

RATE, BITS, SIDE = 30, 40, 16  # of the time in tenths of a millisecond, as squares of so many pixels


def send(url, seconds):
    """The sender's process."""
    out = av.open(url, "w", format="mpegts", options={"flush_packets": "1"})
    track = out.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "tune": "zerolatency", "g": "30"})
    track.width, track.height, track.pix_fmt = 640, 480, "yuv420p"
    track.codec_context.thread_count = 1
    rng, started = np.random.default_rng(0), time.monotonic()
    ground = np.repeat(np.repeat(rng.integers(60, 200, (30, 40, 3), np.uint8), 16, 0), 16, 1)
    for number in range(round(seconds * RATE)):
        time.sleep(max(0.0, started + number / RATE - time.monotonic()))
        image = np.roll(ground, 4 * number, 1)
        stamp = round(time.monotonic() * 1e4)
        bits = np.array([stamp >> bit & 1 for bit in range(BITS)], np.uint8) * 255
        image[:SIDE, : BITS * SIDE] = np.repeat(bits, SIDE)[None, :, None]
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts = number
        out.mux(track.encode(frame))
    out.mux(track.encode(None))
    out.close()


def made(image):
    """When a picture was made, as it says itself."""
    bits = image[SIDE // 2, SIDE // 2 : BITS * SIDE : SIDE].mean(1) > 127
    return sum(1 << bit for bit, on in enumerate(bits.tolist()) if on) / 1e4


def main():
    from conftest import configured

    from pipeline.model.classifier import Classifier
    from pipeline.sources.source import Gap
    from pipeline.sources.url import Url
    from pipeline.streaming.stream import Stream

    torch.set_num_threads(1)
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    url = "udp://127.0.0.1:52733"
    config = configured("train", "extractor=frames", "encoder=image_recurrent", "cell=conv_lstm", f"extractor.rate={RATE}",
                        "extractor.height=64", "extractor.width=64", "extractor.colour=grey")  # fmt: skip
    model = Classifier(config, ["a", "b", "c"]).eval()
    rows = []
    for keep in ("newest", "every"):
        stream = Stream(model, 1)
        stream.push(np.zeros((10, 64, 64, 3), np.uint8))  # warm
        sender = subprocess.Popen([sys.executable, __file__, "--send", url, str(seconds + 30)])
        ages, whole, work, behind, count, now = [], [], [], 0, 0, 0.0
        try:
            for item in Url(url, seconds=seconds, keep=keep, opening=20.0).pieces(model.spec, seen=True):
                if isinstance(item, Gap):
                    behind += item.ticks
                    continue
                if item.seen:  # the picture that was answered last, as it came
                    whole.append(now - made(item.seen[0][1]))
                    continue
                begun = time.monotonic()
                stream.push(item.x)
                now = time.monotonic()
                count += len(stream.posteriors)
                work.append(now - begun)
                ages.append(now - item.captured)
        finally:
            sender.kill()
            sender.wait()
        skip = RATE  # the first second: FFmpeg hands over what it has looked at to learn the format
        for name, values in (("arrival to label", ages), ("sender to label", whole), ("model alone", work)):
            v = 1e3 * np.array(values[skip:])
            figures = [f"{x:.1f}" for x in (np.median(v), np.quantile(v, 0.99), v.max())]
            rows.append([keep, name, len(v), *figures, behind])
    report("live", ["keep", "from ... to", "answers", "p50 ms", "p99 ms", "max ms", "ticks left out"], rows,
           f"UDP on loopback, 640x480 at {RATE} a second for {seconds:.0f} s, ConvLSTM-32 on 64x64, one thread")  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--send"]:
        send(sys.argv[2], float(sys.argv[3]))
    else:
        main()
