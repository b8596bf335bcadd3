"""From opening the page that teaches to the first label on the live page, by script, in headless Chromium.

Two tones in 20 clips and three takes each, 30 s of background, the recipe as it is. Then the false alarms of a tone that
is neither: with the first model, and with the second one, which has been told of them by one click each.

    python benchmarks/teach.py
"""

import os
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ("", "tests")]
from serving import served
from table import report  # beside this file
from teaching import again_and_again, person, tones

SCENE = [(2 + 3 * k, 1, ("low", "other", "high", "other")[k % 4]) for k in range(8)]
SECONDS = 26
FIRST = """new MutationObserver(() => window.first ??= Date.now())
  .observe(document.querySelector("#events"), {childList: true})"""


def judged(events):
    """How many of the true tones were found, and the events at the time of none of them."""
    true = [(start, label) for start, _, label in SCENE if label != "other"]
    hits = [one for one in events if any(abs(one[0] - start) < 1 and one[1] == label for start, label in true)]
    return len({(round(one[0]), one[1]) for one in hits}), [one for one in events if one not in hits]


def main():
    folder, rows = Path(tempfile.mkdtemp()), []
    root = folder / "taught"
    with served(None, f"source.teach={root}") as server:
        teach, begin = server.url.replace("/#", "/teach#"), time.perf_counter()
        with person(teach, tones(folder / "noise.wav", [])) as one:
            one.record_background(30)
        for label in ("low", "high"):
            with person(teach, again_and_again(folder / f"{label}.wav", label)) as one:
                for clips in (7, 7, 6):
                    one.record(label, clips)
                    one.page.click("#next")
        rows.append(["recorded", f"{time.perf_counter() - begin:.0f}", ""])
        scene = tones(folder / "scene.wav", SCENE, 90.0)
        for name in ("first", "second"):
            with person(teach, scene, once=True) as one:
                one.train(again=name == "second", seconds=3600)
                rows.append([f"{name} model trained", f"{time.perf_counter() - begin:.0f}", ""])
                one.page.locator("#runs li").first.get_by_role("button", name="Try live").click()
                one.page.wait_for_url("**/#*")
                one.page.evaluate(FIRST)
                events = one.listen(SECONDS)
                late = time.time() - (one.page.evaluate("window.first") or 0) / 1000
                found, wrong = judged(events)
                true = sum(label != "other" for _, _, label in SCENE)
                what = f"{found} of {true} tones found, {len(wrong)} false alarms"
                rows.append(
                    [f"its first label, live, in {SECONDS} s", f"{time.perf_counter() - begin - late:.0f}", what]
                )
                for _, _, row in wrong:
                    row.get_by_role("button", name="Wrong").click()
                    row.locator("select").wait_for()
    note = f"seconds since the page was opened, by script in Chromium; load of the machine {os.getloadavg()[0]:.1f}"
    report("teach", ["", "seconds", ""], rows, note)


if __name__ == "__main__":
    main()
