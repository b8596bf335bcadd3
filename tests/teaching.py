"""Somebody at the page that teaches, in headless Chromium: records, trains, tries it, and gives wrong answers back."""

import shutil
from contextlib import contextmanager

import numpy as np
import soundfile

RATE = 16000
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HERTZ = {"low": 440, "high": 1760, "other": 900}


def tones(path, what, seconds=60.0):
    """A recording of noise, in which there are tones: ``(start, seconds, "low")``, ..."""
    rng = np.random.default_rng(len(what))
    wave = 0.01 * rng.standard_normal(round(seconds * RATE))
    for start, length, label in what:
        t = np.arange(round(length * RATE)) / RATE
        wave[round(start * RATE) :][: len(t)] += 0.25 * np.sin(2 * np.pi * HERTZ[label] * t)
    soundfile.write(path, wave, RATE, "PCM_16")
    return path


def again_and_again(path, label):
    """A tone of 0.7 s in each second."""
    return tones(path, [(k, 0.7, label) for k in range(30)], 30.0)


class Person:
    """A page in a browser. ``sent``: the bodies of the clips that it has kept."""

    def __init__(self, chrome, url, **options):
        self.problems, self.sent = [], []
        self.page = chrome.new_page(**options)
        self.page.set_default_timeout(120_000)
        self.page.on("console", lambda said: said.type == "error" and self.problems.append(said.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda asked: "/teach/clips?" in asked.url and self.sent.append(asked.post_data_buffer))
        self.page.goto(url)

    def card(self, label):
        return self.page.locator(f'[data-label="{label}"]')

    def until(self, label, count):
        """Wait until a class has so many clips."""
        self.page.wait_for_function(
            "([label, count]) => document.querySelectorAll(`[data-label='${label}'] .tile`).length >= count",
            arg=[label, count],
        )

    def record_background(self, seconds):
        before = self.card("background").locator(".tile").count()
        button = self.card("background").locator(".hold")
        button.click()
        self.page.locator(".hold.on").filter(has_text="s left").wait_for()
        self.page.wait_for_timeout(1000 * seconds)
        if button.get_attribute("class") == "hold on":
            button.click()
        self.until("background", before + 1)
        self.page.locator(".hold.on").wait_for(state="detached")

    def record(self, label, clips, seconds=0.8):
        """Hold the button so many times."""
        if not self.card(label).count():
            self.page.fill("#name", label)
            self.page.click("#new button")
        before = self.card(label).locator(".tile").count()
        for number in range(clips):
            self.card(label).locator(".hold").hover()
            self.page.mouse.down()
            self.page.locator(".hold.on").filter(has_text=" s").wait_for()
            self.page.wait_for_timeout(1000 * seconds)
            self.page.mouse.up()
            self.until(label, before + number + 1)
            self.page.locator(".hold.on").wait_for(state="detached")

    def train(self, again=False, seconds=1800):
        """What the page says at the end."""
        self.page.click("#again" if again else "#train")
        self.page.locator("#stop").wait_for()
        self.page.locator("#stop").wait_for(state="hidden", timeout=1000 * seconds)
        return self.page.locator("#why").inner_text()

    def listen(self, seconds):
        """Be live for so many seconds of sound; the events by start and label, with their rows."""
        self.page.locator("#start:enabled").click()
        self.page.wait_for_function(
            "ticks => Number(document.querySelector('#start').dataset.tick) >= ticks",
            arg=seconds * RATE,
            timeout=4000 * seconds + 60_000,
        )
        self.page.click("#start")
        self.page.locator("#link").filter(has_text="Stopped").wait_for()
        rows = self.page.locator("#events li:not(.gap)").all()
        times = [to_seconds(row.locator("time").inner_text()) for row in rows]
        return [(time, row.locator("b").inner_text(), row) for time, row in zip(times, rows)][::-1]


def to_seconds(text):
    minutes, seconds = text.split(":")
    return 60 * int(minutes) + float(seconds)


@contextmanager
def person(url, heard, once=False, **options):
    """Somebody whose microphone hears a recording, again and again or ``once``."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--use-fake-device-for-media-stream",
             "--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={heard}{'%noloop' * once}"]  # fmt: skip
    with sync_playwright() as play:
        chrome = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield Person(chrome, url, **options)
        chrome.close()
