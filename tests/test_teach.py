"""Teaching in a folder: what is kept in it, what can be asked of it, and the trainings that it is for."""

import json
import os
import shlex
import struct
import urllib.error
import urllib.request
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import soundfile
from conftest import configured, ran, tone_clips, until
from serving import served
from teaching import CHROMIUM, again_and_again, person, tones

from datasets.folder import Folder
from pipeline.core.errors import UserError
from pipeline.core.search_space import quote
from pipeline.serving.teach_folder import BACKGROUND, TeachFolder, count, missing
from pipeline.serving.teach_training import RECIPES, Training, arguments_for

RATE = 16_000
SMALL = ["trainer.epochs=2", "encoder.hidden=8", "extractor.mels=16", "export=false", "dataset.cache=null"]


def sound(hertz, seconds=0.5, seed=0):
    """int16 samples of a tone in noise, after some of the noise alone."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    wave = 0.3 * np.sin(2 * np.pi * hertz * t) * (t > seconds / 4) + 0.01 * rng.standard_normal(len(t))
    return (wave * 32767).astype(np.int16)


@pytest.fixture
def folder(tmp_path):
    return TeachFolder(tmp_path / "taught")


@pytest.fixture
def taught(folder):
    """Two classes in three takes each, and the background."""
    folder.add_sound(BACKGROUND, "home", 1, sound(0, 6), RATE)
    for label, hertz in (("low", 440), ("high", 1760)):
        for number in range(6):
            folder.add_sound(label, "home", 1 + number % 3, sound(hertz, seed=number), RATE)
    return folder


def test_what_is_kept_is_what_was_heard_and_a_take_is_one_group(folder):
    kept = {}
    for number in range(12):
        label, samples = ("dog", "big cat")[number % 2], sound(300 + number, seed=number)
        kept[folder.add_sound(label, "kitchen" if number < 6 else "yard", 1 + number // 3, samples, RATE)] = samples
    for path, samples in kept.items():
        assert path.parent.parent == folder.root and soundfile.info(path).subtype == "PCM_16"
        assert np.array_equal(soundfile.read(path, dtype="int16")[0], samples)
    found = Folder(str(folder.root), val=0.25, test=0.25, cache=None)
    assert found.labels == ["big cat", "dog"]
    assert {clip.path for clip in found.clips} == {*kept}
    splits = {group: {clip.split for clip in found.clips if clip.group == group} for group in found_groups(found)}
    assert sorted(splits) == ["kitchen-1", "kitchen-2", "yard-3", "yard-4"]  # of both classes
    assert all(len(split) == 1 for split in splits.values())
    assert count(folder.clips()) == {"clips": 12, "takes": 4, "places": 2, "seconds": 6.0}


def found_groups(corpus):
    return {clip.group for clip in corpus.clips}


def test_what_negatives_name_are_no_clips(taught):
    with pytest.warns(UserWarning, match="all its clips are in train"):  # one take of nothing is enough
        both = Folder(str(taught.root), cache=None, background=BACKGROUND)
    assert both.labels == [BACKGROUND, "high", "low"]
    background = str(taught.root / BACKGROUND)
    without = Folder(str(taught.root), cache=None, negatives=background)
    assert {clip.label for clip in without.clips} == {"high", "low"} and without.labels == both.labels
    for path in (taught.root / "high").iterdir():
        path.unlink()
    assert Folder(str(taught.root), cache=None, negatives=background).labels == [BACKGROUND, "low"]  # two classes


HOSTILE = ["../../up", "a/b", "..", ".hidden", "/etc/cron.d/x", "C:\\x", "\0", "", "  ", "-rf", "~root", "a\nb", "x" * 500,
           "‮evil", "ä/ö", "con.txt", "$(id)", "${oc.env:HOME}", "a,b=c", "train", "'"]  # fmt: skip


def test_no_name_leads_out_of_the_folder(folder, tmp_path):
    for text in HOSTILE:
        for label, place in ((text, "home"), ("dog", text)):
            try:
                path = folder.add_sound(label, place, 1, sound(440, 0.1), RATE)
            except UserError as error:
                assert "choose another one" in str(error)
                continue
            assert path.is_file() and path.parent.parent == folder.root and len(path.name) < 100
            assert not path.parent.name.startswith((".", "-", " "))
    assert [path.name for path in tmp_path.iterdir()] == ["taught"]
    assert not any(path.name.startswith(".") for path in folder.root.rglob("*"))


def test_only_what_is_listed_can_be_asked_for(folder, tmp_path):
    secret = tone_clips(tmp_path / "outside", "s", 1) / "s" / "0.wav"
    path = folder.add_sound("dog", "home", 1, sound(440), RATE)
    (folder.root / "link").symlink_to(secret.parent)
    (folder.root / "dog" / "link.wav").symlink_to(secret)
    (folder.root / "dog" / "notes.txt").write_text("mine")
    (folder.root / ".rivulet").mkdir()
    assert [(clip.label, clip.name) for clip in folder.clips()] == [("dog", path.name)]
    for label, name in [("link", "0.wav"), ("dog", "link.wav"), ("dog", "notes.txt"), ("dog", f"../dog/{path.name}"),
                        ("dog/.", path.name), ("..", "outside/s/0.wav"), ("", "dog"), ("dog", ""), ("dog", "\0")]:  # fmt: skip
        for ask in (folder.find, folder.delete, lambda *clip: folder.move(*clip, "cat")):
            with pytest.raises(UserError, match="there is no clip"):
                ask(label, name)
    with pytest.raises(UserError, match="link: is no folder"):
        folder.add_sound("link", "home", 1, sound(440), RATE)
    assert secret.is_file() and len([*secret.parent.iterdir()]) == 1


def test_clips_are_moved_and_deleted(folder):
    first, second = (folder.add_sound("dog", "home", 2, sound(440 + n), RATE) for n in range(2))
    other = folder.add_sound("Cat", "home", 2, sound(880), RATE)
    before = first.read_bytes()
    moved = folder.move("dog", first.name, "cat")  # in any case
    assert moved.parent == other.parent and moved.name != other.name and moved.read_bytes() == before
    assert {clip.take for clip in folder.clips()} == {"home-2"}
    folder.delete("dog", second.name)
    assert not second.parent.exists() and [clip.label for clip in folder.clips()] == ["Cat", "Cat"]
    (folder.root / "dog").mkdir()
    soundfile.write(folder.root / "dog" / "my bark (1).flac", sound(440), RATE)
    assert folder.move("dog", "my bark (1).flac", "cat").name == "my bark 1_000.0.flac"


def test_the_folder_can_be_full(tmp_path):
    few, small = TeachFolder(tmp_path / "few", most=2), TeachFolder(tmp_path / "small", size=40_000)
    for place in (few, small):
        for _ in range(2):
            place.add_sound("dog", "home", 1, sound(440), RATE)
        with pytest.raises(UserError, match="is the most; delete some"):
            place.add_sound("dog", "home", 1, sound(440), RATE)
        place.delete("dog", place.clips()[0].name)
        place.add_sound("dog", "home", 1, sound(440), RATE)


def test_pictures_are_kept_at_their_times(folder):
    times = [0.5, 0.6, 0.75, 1.1, 1.5]
    images = [np.full((48, 64, 3), 40 * number, np.uint8) for number in range(5)]
    free = (image for image in images if folder.lock.acquire(blocking=False) and folder.lock.release() is None)
    path = folder.add_pictures("wave", "home", 1, free, times)
    with av.open(str(path)) as file:
        shown = list(file.decode(video=0))
    assert np.allclose([frame.time for frame in shown], np.array(times) - 0.5)
    assert np.allclose([frame.to_ndarray(format="rgb24").mean() for frame in shown], [0, 40, 80, 120, 160], atol=3)
    (clip,) = folder.clips()
    assert clip.pictures and clip.take == "home-1" and clip.seconds

    def broken():
        yield images[0]
        raise UserError("damaged")

    with pytest.raises(UserError, match="damaged"):
        folder.add_pictures("wave", "home", 1, broken(), times)
    assert [one.name for one in (folder.root / "wave").iterdir()] == [path.name]
    assert os.listdir(folder.root) == ["wave"]


def test_what_is_missing_is_told(taught):
    assert missing([]) == "Record the background first: 30 seconds of it."
    clips = taught.clips()
    assert missing([clip for clip in clips if clip.label == BACKGROUND]) == "Add a class."
    assert missing(clips) == ""
    first = [clip for clip in clips if clip.label != "low" or clip.take == "home-1"]
    assert missing(first) == "low: 2 clips; at least 4 are needed."


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_a_command_line(recipe, tmp_path):
    odd = tmp_path / "it's, {mine} = $x"
    begin = tmp_path / "run"
    settings = configured("train", *arguments_for(recipe, odd, tmp_path / "out", begin, ["trainer.epochs=3"]))
    assert settings["dataset"]["root"] == str(odd) and settings["trainer"]["pretrained"] == str(begin)
    assert settings["trainer"]["epochs"] == 3 and settings["decoder"]["background"] == [BACKGROUND]
    assert (settings["dataset"]["negatives"] == str(odd / BACKGROUND)) == (recipe != "gestures")


@pytest.mark.long
def test_a_training_is_a_child_that_can_fail_be_stopped_and_go_on(taught):
    training = Training(taught.root, SMALL)
    assert training.state() == {"running": False, "runs": []}
    with pytest.raises(UserError, match="no finished training of sounds"):
        training.start("sounds", again=True)
    with pytest.raises(UserError, match="no recipe"):
        training.start("../sounds", again=False)

    training.start("sounds", again=False)
    for other in (training, Training(taught.root)):  # of another server, too
        with pytest.raises(UserError, match="a training is running"):
            other.start("sounds", again=False)
    assert Path(f"/proc/{training.child.pid}/stat").read_text().split()[18] == "5"  # its niceness
    state = until(lambda: not (found := training.state())["running"] and found, 550)
    assert state["error"] == "" and state["epochs"] == 2 and len(state["history"]) == 2, training.log.read_text()
    assert [run["run"] for run in state["runs"]] == ["1-sounds"] and state["runs"][0]["accuracy"] >= 0
    assert training.find("1-sounds", "report.html").is_file()
    for name, file in [("1-sounds", "last.ckpt"), ("..", "report.html"), ("2-sounds", "report.html")]:
        with pytest.raises(UserError, match="there is no"):
            training.find(name, file)

    training.start("sounds", again=True)
    assert f"trainer.pretrained={quote(f'{taught.root}/.rivulet/1-sounds')}" in shlex.split(training.command)
    until(lambda: "begins with the weights of" in training.log.read_text(), 300)
    training.stop()
    state = training.state()
    assert not state["running"] and state["error"] == "It was stopped." and len(state["runs"]) == 1

    slow = Training(taught.root, SMALL, limit=0.2)
    slow.start("sounds", again=False)
    state = until(lambda: not (found := slow.state())["running"] and found, 300)
    assert state["run"] == "3-sounds" and state["error"] == "It was ended after 0.00333333 minutes."

    wrong = Training(taught.root, ["encoder.hiden=8"])
    wrong.start("sounds", again=False)
    state = until(lambda: not (found := wrong.state())["running"] and found, 300)
    assert state["error"].startswith("encoder.hiden") and "hidden" in state["error"] and len(state["runs"]) == 1


def test_a_server_gives_only_what_is_in_the_folder_and_only_to_those_with_the_token(tmp_path):
    root, jpeg = tmp_path / "taught", cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    (tmp_path / "secret.wav").write_bytes(b"secret")
    with served(None, f"source.teach={root}") as server:

        def ask(method, path, body=None, kind="audio/l16", token=server.token):
            headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
            asked = urllib.request.Request(f"{server.origin}{path}", body, headers, method=method)
            try:
                with urllib.request.urlopen(asked, timeout=60) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                return error.code, json.loads(error.read())["error"]

        samples = sound(440)
        good = "/teach/clips?label=dog&place=home&take=1&rate=16000"
        status, told = ask("POST", good, samples.tobytes())
        assert (status, json.loads(told)) == (200, {"label": "dog", "name": "home-1_000.0.wav"})
        path = root / "dog" / "home-1_000.0.wav"
        assert ask("GET", "/teach/clips/dog/home-1_000.0.wav") == (200, path.read_bytes())
        pictures = b"".join(struct.pack("<II", 100 * k, len(jpeg)) + jpeg for k in range(5))
        assert ask("POST", "/teach/clips?label=wave&place=home&take=1", pictures, "application/octet-stream")[0] == 200
        state = json.loads(ask("GET", "/teach/state")[1])
        assert [one["label"] for one in state["classes"]] == ["background", "dog", "wave"] and state["pictures"]
        assert state["missing"] == "Record the background first: 30 seconds of it."

        asked = [("GET", "/teach/state"), ("POST", good), ("GET", "/teach/clips/dog/home-1_000.0.wav"),
                 ("DELETE", "/teach/clips/dog/home-1_000.0.wav"), ("POST", "/teach/clips/dog/home-1_000.0.wav?to=cat"),
                 ("POST", "/teach/train?recipe=sounds"), ("POST", "/teach/stop"), ("POST", "/teach/install?run=1-sounds"),
                 ("GET", "/teach/runs/1-sounds/report.html")]  # fmt: skip
        for method, url in asked:
            assert ask(method, url, samples.tobytes() if method == "POST" else None, token="wrong")[0] == 401
        cut, late = pictures[:-1], pictures + struct.pack("<II", 400, len(jpeg)) + jpeg
        wrong = [
            ("GET", "/teach/clips/..%2f/secret.wav", None, "there is no clip"),
            ("GET", "/teach/clips/%2e%2e/..%2fsecret.wav", None, "there is no clip"),
            ("DELETE", f"/teach/clips/dog/{'x' * 2000}", None, "there is no clip"),
            ("POST", "/teach/clips/dog/home-1_000.0.wav?to=..%2f..", None, "has no letters"),
            ("POST", good.replace("dog", "..%2f"), samples.tobytes(), "has no letters"),
            ("POST", good.replace("take=1", "take=-1"), samples.tobytes(), "take: got '-1'; expected 1 to 9999"),
            ("POST", good.replace("rate=16000", "rate=1e9"), samples.tobytes(), "rate: got '1e9'"),
            ("POST", good, b"\0", "the clip is empty"),
            ("POST", good, bytes(2 * 16000 * 61), "the clip is too long"),
            ("POST", "/teach/install?run=..%2f..", None, "there is no model.safetensors of a training"),
            ("GET", "/teach/runs/%2e%2e/report.html", None, "there is no report.html"),
            ("POST", "/teach/train?recipe=sounds", None, "Record the background first"),
        ]
        for method, url, body, text in wrong:
            status, told = ask(method, url, body)
            assert status == 400 and text in told, (url, told)
        few = pictures[:8] + jpeg, "two pictures"
        for body, text in [(cut, "cut off"), (late, "not in order"), few, (b"x" * 99, "cut off")]:
            status, told = ask("POST", "/teach/clips?label=wave&place=home&take=1", body, "application/octet-stream")
            assert status == 400 and text in told, told
        rng = np.random.default_rng(0)
        for _ in range(25):
            bad = bytearray(pictures)
            for place in rng.integers(len(bad), size=5):
                bad[place] = rng.integers(256)
            status, _ = ask("POST", "/teach/clips?label=wave&place=home&take=2", bytes(bad), "application/octet-stream")
            assert status in (200, 400)
        assert ask("DELETE", "/teach/clips/dog/home-1_000.0.wav")[0] == 200 and not path.exists()
        assert server.process.poll() is None and "Traceback" not in server.errors
    assert {path.name for path in tmp_path.iterdir()} == {"taught", "secret.wav"}
    assert not [*root.rglob("*.part")]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: make test-browser installs it")
def test_a_page_teaches_two_tones(tmp_path):
    pytest.importorskip("playwright.sync_api", reason="make test-browser installs it")
    root = tmp_path / "taught"
    quick = ["encoder=recurrent", "encoder.hidden=16", "extractor.mels=20", "trainer.batch=4", "trainer.epochs=40"]
    with served(None, f"source.teach={root}", f"source.train={quote(quick)}") as server:
        teach, kept = server.url.replace("/#", "/teach#"), []
        with person(teach, tones(tmp_path / "noise.wav", [])) as one:
            one.page.locator("#why").get_by_text("Record the background first: 30 seconds of it.").wait_for()
            one.record_background(6)
            kept += one.sent
            assert one.problems == []
        for label in ("low", "high"):
            with person(teach, again_and_again(tmp_path / f"{label}.wav", label)) as one:
                for _ in range(2):
                    one.record(label, 3)
                    one.page.click("#next")
                kept += one.sent
                assert one.problems == []
        files = sorted(root.rglob("*.wav"))
        assert len(files) == len(kept) == 13
        assert {soundfile.read(path, dtype="int16")[0].tobytes() for path in files} == {*kept}
        assert {path.name.split("_")[0] for path in files} == {"quiet home-1", *(f"home-{n}" for n in range(1, 5))}

        scene = tones(tmp_path / "scene.wav", [(3, 1, "low"), (6, 1, "high"), (9, 1, "low")], 90.0)
        with person(teach, scene, once=True) as one:
            assert one.train() == "Done: try it below."
            if folder := os.environ.get("RIVULET_PICTURES"):
                one.page.screenshot(path=Path(folder) / "teach.png", full_page=True)
            one.page.click("#runs button.main")
            one.page.wait_for_url("**/#*")
            events = one.listen(12)
            assert [label for _, label, _ in events] == ["low", "high", "low"]
            assert np.allclose(np.diff([start for start, _, _ in events]), 3, atol=0.3)
            events[0][2].get_by_role("button", name="Wrong").click()
            choice = events[0][2].locator("select")
            (back,) = until(lambda: [*root.glob("background/quiet live-1_*.wav")])
            assert soundfile.read(back, dtype="int16")[0].tobytes() == one.sent[-1]
            choice.select_option("high")
            until(lambda: [*root.glob("high/quiet live-1_*.wav")] and not back.exists())
            one.page.locator("#tools button").get_by_text("high").click()
            until(lambda: [*root.glob("high/live-1_*.wav")])
            assert one.problems == []
    ran("train.py", "dataset=folder", f"dataset.root={root}", f"dataset.negatives={root / BACKGROUND}", "dataset.test=0",
        *quick, "trainer.epochs=1", "trainer.workers=0", f"hydra.run.dir={tmp_path / 'by_hand'}")  # fmt: skip
    assert (tmp_path / "by_hand" / "model.safetensors").is_file()
