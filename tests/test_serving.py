"""Sessions, messages and seals, as bytes and a clock; the hall, in this process. Sockets: test_serving_web.py."""

import base64
import json
import os
import random
import sqlite3
import time
from collections import Counter, defaultdict
from contextlib import closing

import cv2
import numpy as np
import pytest
from conftest import BOTH, PICTURES, lively_model, noise, read_jsonl, small_model
from hypothesis import given
from hypothesis import strategies as st
from played import Shared
from serving import GAP, PICTURE, SOUND, Told, frame, mutated, offline, sound_frames

from pipeline.core.errors import ConfigError
from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Picture
from pipeline.serving import messages
from pipeline.serving.darkroom import Darkroom, decoded
from pipeline.serving.hall import Hall
from pipeline.serving.messages import Hello, Refused, jpeg_size
from pipeline.serving.once import Once
from pipeline.serving.orders import Chunk, Enter, Gone, Leave, Lost, Parts
from pipeline.serving.seal import Sealed, SealError, Seals, read_key
from pipeline.serving.session import Session
from pipeline.sinks.clips import Clips
from pipeline.sinks.fanout import Fanout
from pipeline.sinks.items import StreamInfo, TimedEvent, TimedGap
from pipeline.sinks.jsonl import JSONLines
from pipeline.sinks.sink import Sink
from pipeline.sinks.sqlite import SQLite
from pipeline.streaming.scheduler import Scheduler
from pipeline.streaming.stream import Stream

HEARS, SEES = InputSpec(16000), InputSpec(picture=Picture(10, 8, 12))
TWO = InputSpec(16000, Picture(10, 8, 12))
SPECS = {"sound": HEARS, "pictures": SEES, "both": TWO}
CODES = {value for name, value in vars(messages).items() if name.isupper() and isinstance(value, int) and 4400 <= value < 4600}  # fmt: skip
TOKEN = "secret"
HELLO = json.dumps({"type": "hello", "token": TOKEN})
LIVELY = ["decoder.threshold=0.34", "decoder.release=0.33", "decoder.minimum=0"]


def begun(spec=HEARS, credit=32000, gap="reset", at=0):
    session = Session(spec, credit, gap, lambda token: token == TOKEN, 0.0)
    assert isinstance(*session.take(HELLO, 0.0), Enter)
    session.welcome(at)
    return session


def jpeg(seed=0, width=24, height=16, *options):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(".jpg", image, options)[1].tobytes()


def samples_in(orders):
    return np.concatenate([np.zeros(0, np.float32), *(order.x[0] for order in orders if isinstance(order, Parts))])


# ---------------------------------------------------------------- messages and sessions
def valid_frames(spec):
    wave = np.arange(-50, 50, dtype=np.int16) * 300
    frames = [frame(GAP, 100, 320, b"lost"), frame(GAP, 100, 1600, b"behind")]
    if spec.sound:
        frames += [frame(SOUND, 0, 100, wave.tobytes()), frame(SOUND, 100, 25, wave.tobytes()[:100], flags=1)]
    if spec.picture:
        frames += [frame(PICTURE, 0, 0 if spec.both else 1, jpeg())]
    if spec.both:
        frames += [frame(GAP, 100, 1600, b"x", flags=1), frame(GAP, 100, 0, b"y", flags=2)]
    return frames


@pytest.mark.parametrize("name", SPECS)
def test_3400_mutated_frames_are_orders_or_refused_with_a_code(name):
    spec, rng, met = SPECS[name], random.Random(name), Counter()
    room = Darkroom(spec, None) if spec.picture else None
    for _ in range(3400):
        session = begun(spec, at=100)
        try:
            for order in session.take(mutated(rng, rng.choice(valid_frames(spec))), 0.0):
                parts = room.develop(None, order) if isinstance(order, Chunk) else order
                met[type(parts).__name__] += 1
                if isinstance(parts, Parts):
                    spec.parts(parts.x if len(parts.x) > 1 else parts.x[0])
                assert session.given <= session.expected < 2**53
        except Refused as error:
            met[error.code] += 1
            assert error.code in CODES and 0 < len(error.reason) < 200
    assert met[messages.MALFORMED] > 100 and met[messages.HOLE] > 10 and sum(met.values()) > 2000


def test_1000_mutated_hellos_are_taken_or_refused_with_a_code():
    rng, met = random.Random(1), Counter()
    whole = json.dumps({"type": "hello", "token": TOKEN, "name": "kitchen", "tick": 5, "resume": "AAAA", "answered": 7})
    odd = ["[" * 100_000, "{}", "null", "\ud800", ""]
    odd += ['{"type":"hello"}', '{"type":"end"}', '{"type":"ping","time":NaN}']
    for text in [*odd, *(mutated(rng, whole.encode()).decode("utf-8", "replace") for _ in range(1000))]:
        session = Session(HEARS, 100, "reset", lambda token: token == TOKEN, 0.0)
        try:
            met[type(*session.take(text, 0.0)).__name__] += 1
        except Refused as error:
            met[error.code] += 1
    assert set(met) <= {"Enter", messages.MALFORMED, messages.TOKEN} and min(met.values()) > 10


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 300)), max_size=60), st.booleans())
def test_frames_that_come_again_in_any_cuts_are_taken_once(cuts, floats):
    wave = np.arange(2000, dtype=np.int16)
    session, orders = begun(), []
    for start, length in sorted(cuts):
        piece = wave[start : start + length]
        data = (piece / np.float32(32768)).astype("<f4").tobytes() if floats else piece.tobytes()
        if start > session.expected:
            with pytest.raises(Refused) as caught:
                [*session.take(frame(SOUND, start, len(piece), data, flags=floats), 0.0)]
            assert caught.value.code == messages.HOLE
            break
        orders += session.take(frame(SOUND, start, len(piece), data, flags=floats), 0.0)
    assert np.array_equal(samples_in(orders) * 32768, wave[: session.expected])


def test_what_a_session_refuses_and_in_which_order():
    def code(messages_, spec=HEARS, start=HELLO):
        session = Session(spec, 32000, "reset", lambda token: token == TOKEN, 0.0)
        try:
            for number, message in enumerate([start, *messages_]):
                if number == 1:
                    session.welcome(0)
                [*session.take(message, 0.0)]
        except Refused as error:
            return error.code
        return None

    sound = frame(SOUND, 0, 2, bytes(4))
    assert code([sound, '{"type":"ping","time":1.5}', frame(GAP, 2, 1 << 31), *['{"type":"end"}'] * 2]) is None
    assert code(['{"type":"end"}', sound]) == code([HELLO]) == code([], start='{"type":"end"}') == messages.MALFORMED
    assert code([], start=sound) == code([], start='{"type":"hello","token":"secret","tick":-1}') == messages.MALFORMED
    assert code([], start='{"type":"hello","token":"geheim"}') == messages.TOKEN
    assert code([frame(SOUND, 1, 2, bytes(4))]) == messages.HOLE
    assert code([frame(SOUND, 0, 32770, bytes(65540))]) == messages.TOO_LARGE
    assert code([frame(PICTURE, 0, 1, jpeg())]) == messages.MALFORMED  # of a model of sound
    assert code([frame(PICTURE, 0, 1, jpeg(width=1928))], SEES) == messages.TOO_LARGE
    assert code([frame(PICTURE, 0, 40_000, jpeg())], SEES) == messages.TOO_LARGE
    assert code([frame(PICTURE, 0, 1, jpeg()[2:])], SEES) == messages.MALFORMED
    assert code([frame(PICTURE, k, 0, jpeg()) for k in range(80)], TWO) == messages.TOO_LARGE
    assert code([frame(SOUND, 0, 2, bytes(4))], TWO, '{"type":"hello","token":"secret","tick":7}') == messages.MALFORMED


def test_reading_pauses_beyond_four_times_real_time_and_150_messages_a_second():
    session, now, ticks = begun(credit=10**9), 0.0, 0
    while ticks < 16000 * 60:
        [*session.take(frame(SOUND, ticks, 1600, bytes(3200)), now)]
        ticks, now = ticks + 1600, now + max(0.0, session.pause(now))
    assert 60 / 4 - 2 <= now <= 60 / 3 - 2  # the messages count, too
    session, now = begun(), 0.0
    for _ in range(4000):
        [*session.take('{"type":"ping","time":0}', now)]
        now += max(0.0, session.pause(now))
    assert 24 <= now <= 26
    for policy, least in [("reset", 18), ("zeros", 900)]:
        session, now = begun(gap=policy), 0.0
        for k in range(400):
            [*session.take(frame(GAP, 160_000 * k, 160_000, b"x"), now)]
            now += max(0.0, session.pause(now))
        assert least <= now <= 1.2 * least
    session = begun(credit=3200)
    for k in range(3):
        assert session.has_credit
        [*session.take(frame(SOUND, 1600 * k, 1600, bytes(3200)), 0.0)]
    assert not session.has_credit
    session.answered = 1600
    assert session.has_credit


def test_sizes_of_jpegs_are_read_from_their_headers():
    for width, height in [(1, 1), (64, 48), (1919, 7), (33, 1080)]:
        data = jpeg(0, width, height)
        assert jpeg_size(data) == (width, height) and decoded(data).shape == (height, width, 3)
        assert {jpeg_size(data[:length]) for length in range(len(data))} <= {None, (width, height)}
    png = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    assert jpeg_size(png) is None
    assert jpeg_size(jpeg(0, 33, 1080, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)) is None  # many scans take long to decode
    many = jpeg()
    many = many[:-2] + 20 * many[many.index(b"\xff\xda") :]
    with pytest.raises(Refused, match="scans"):
        messages.check_picture(many)
    with pytest.raises(Refused, match="cannot be decoded"):
        decoded(jpeg()[:40] + bytes(100))


# ---------------------------------------------------------------- two tracks
def together(spec, log, start=0):
    """Orders of a log of frames from a tick on, as a client sends it again: all from the first sound on that is not
    known, and of the pictures before that the newest at or before the tick, and later ones."""
    session = begun(spec, credit=10**9, at=start)
    first = next((k for k, one in enumerate(log) if one[0] != PICTURE and one[1] + one[2] > start), len(log))
    pictures = [one for one in log[:first] if one[0] == PICTURE]
    older = [one for one in pictures if one[1] <= start][-1:]
    again = [*older, *(one for one in pictures if one[1] > start), *log[first:]]
    return [order for one in again for order in session.take(frame(*one), 0.0)]


def chunks_of(orders):
    """Periods: samples, picture, marks; a gap is its length."""
    found = []
    for order in orders:
        if isinstance(order, Lost):
            found.append(order.ticks)
            continue
        for k, picture in enumerate(order.pictures):
            found.append((order.sound[1600 * k : 1600 * (k + 1)].tobytes(), picture, order.heard[k]))
    return found


@given(st.integers(0, 2**32 - 1))
def test_two_tracks_are_put_together_the_same_however_often_they_are_sent(seed):
    """Against the rule, written down a second time; and from any period on."""
    rng, log, tick, shown = random.Random(seed), [], 0, 0
    while tick < 20_000:
        if rng.random() < 0.5:
            shown += rng.randrange(1, 2500)
            log.append((PICTURE, shown, 0, jpeg(shown)))
        length = rng.randrange(1, 1200)
        log.append((SOUND, tick, length, np.full(length, tick % 1000, np.int16).tobytes()))
        tick += length
    found = chunks_of(together(TWO, log))
    for number, (_, picture, heard) in enumerate(found):
        begin = 1600 * number
        last = next(k for k, one in enumerate(log) if one[0] == SOUND and one[1] + one[2] >= begin + 1600)
        eligible = [one[3] for one in log[:last] if one[0] == PICTURE and one[1] <= begin]
        assert heard and picture == (eligible[-1] if eligible else None)
    again = rng.randrange(len(found) + 1)
    assert chunks_of(together(TWO, log, 1600 * again)) == found[again:]


def test_gaps_of_one_track_or_both():
    wave = np.ones(2000, np.int16)
    log = [(PICTURE, 0, 0, b""), (SOUND, 0, 2000, wave.tobytes()), (GAP, 2000, 5000, b"gone"), (SOUND, 7000, 1000, wave[:1000].tobytes())]  # fmt: skip
    picture = jpeg()
    log[0] = (PICTURE, 0, 0, picture)
    one, two, gap, three = chunks_of(together(TWO, log))
    assert gap == 3200 and [row[1:] for row in (one, two, three)] == [(picture, heard) for heard in (True, False, True)]
    assert three[0] == bytes(4 * 600) + np.full(1000, 1 / 32768, np.float32).tobytes()
    session = begun(TWO)
    orders = [*session.take(frame(PICTURE, 0, 0, picture), 0.0)]
    orders += session.take(frame(GAP, 0, 3200, b"no microphone", flags=1), 0.0)
    orders += session.take(frame(GAP, 3200, 0, b"no camera", flags=2), 0.0)
    orders += session.take(frame(SOUND, 3200, 1600, bytes(3200)), 0.0)
    assert [row[1:] for row in chunks_of(orders)] == [(picture, False), (picture, False), (None, True)]
    orders = [*session.take(frame(SOUND, 4800, 10, bytes(20)), 0.0), *session.take('{"type":"end"}', 0.0)]
    assert isinstance(orders[-1], Leave) and chunks_of(orders[:-1]) == [(bytes(6400), None, False)]


# ---------------------------------------------------------------- seals
def test_a_seal_is_taken_whole_with_its_key_and_within_an_hour():
    seals, now = Seals(b"k" * 32), 1_796_040_000.0
    sealed = Sealed("0123456789abcdef", 77, now - 5, b"all that is remembered")
    text = seals.seal(sealed, now)
    assert seals.open(text, now + 3600) == sealed
    with pytest.raises(SealError, match="hour"):
        seals.open(text, now + 3602)
    data = base64.b64decode(text)
    bad = [data[:k] + bytes([data[k] ^ 1]) + data[k + 1 :] for k in range(len(data))]
    bad += [data[:k] for k in range(len(data))] + [data + b"\0"]
    others = "", "no base64 ä", Seals(b"K" * 32).seal(sealed, now)
    for wrong in [*others, *(base64.b64encode(one).decode() for one in bad)]:
        with pytest.raises(SealError, match="not of this server"):
            seals.open(wrong, now)
    assert seals.fits(seals.token) and not any(map(seals.fits, ["", "ä", "\ud800", seals.token[:-1]]))


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "deep" / "key"
    key = read_key(path)
    assert read_key(path) == key and len(key) == 32 and path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["key"]
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_key(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match="5 bytes"):
        read_key(path)


# ---------------------------------------------------------------- the hall
class Room:
    """A hall without network: orders go in, and turns are taken by hand."""

    def __init__(self, model, sink=None, key=b"k" * 32, block=0.1, known=None):
        self.told = defaultdict(list)
        self.sink = sink or Fanout({"shared": Anybody()})
        self.hall = Hall(model, block, {}, self.sink, Seals(key), Once(known), self.post)
        self.darkroom = Darkroom(model.spec, None)

    def post(self, news):
        for one in news:
            self.told[one.client].append(one)

    def do(self, *orders):
        """Orders, and turns until nothing waits."""
        for client, order in orders:
            if isinstance(order, Chunk):  # what the thread does
                try:
                    order = self.darkroom.develop(client, order)
                except Refused as error:
                    order = error
            self.hall.inbox.put((client, order))
        more = True
        while more or not self.hall.inbox.empty():
            more = self.hall.turn(True)

    def ends(self, client):
        return [one.end.code for one in self.told[client] if one.end]


class Anybody(Shared):
    several = True


class Listener(Sink):
    """Keeps the events and gaps of all streams, as often as they are told."""

    several = True

    def __init__(self, heard):
        self.heard = heard

    def write(self, item):
        if isinstance(item, TimedEvent | TimedGap):
            self.heard.append((self.stream.name[-16:], getattr(item, "label", "gap"), round(item.start * 16000)))


class Page:
    """A client as a page is: keeps the newest seal and what follows it, sends that again, and takes each answer once."""

    def __init__(self, samples, spec=HEARS, size=1600):
        pieces = ((k, samples[k : k + size]) for k in range(0, len(samples), size))
        self.log = [(SOUND, k, len(piece), piece.tobytes()) for k, piece in pieces]
        self.spec, self.told, self.at, self.seal, self.connection = spec, Told(), 0, None, 0

    def connect(self, room):
        self.connection += 1
        self.me = self, self.connection
        room.do((self.me, Enter(Hello(type="hello", token="", resume=self.seal, answered=self.told.next))))
        self.welcome = json.loads(room.told[self.me][0].text)
        self.session = begun(self.spec, credit=10**9, at=self.welcome["from"])
        self.sent = next((k for k, one in enumerate(self.log) if one[1] + one[2] > self.welcome["from"]), len(self.log))
        self.take(room)

    def send(self, room, count=1):
        for one in self.log[self.sent : self.sent + count]:
            room.do(*((self.me, order) for order in self.session.take(frame(*one), 0.0)))
        self.sent += count

    def take(self, room, most=None):
        """What has come; of it only the first ``most`` texts if the connection is lost then."""
        for one in room.told.pop(self.me, [])[:most]:
            if one.text:
                row = self.told.take(one.text, len(self.welcome["labels"]))
                self.seal = row.get("seal", self.seal)


@pytest.fixture(scope="module")
def hearing():
    return small_model("head.window=0.3", *LIVELY, labels=("background", "high", "low"))


def test_bits_are_those_of_a_scheduler_whatever_is_lost_and_whoever_takes_over(hearing, monkeypatch, tmp_path):
    """Four pages; servers die and are replaced by others with the same key, connections break, answers get lost, clients
    come back after minutes. The sinks are told each event and gap once."""
    monkeypatch.setattr("pipeline.serving.hall.SEAL_SECONDS", 0.0)
    rng, told = random.Random(3), []
    waves = [(noise(16000 * 4 + 100 * seed, seed) * 32767).astype(np.int16) for seed in range(4)]
    pages = [Page(wave, size=rng.randrange(300, 3000)) for wave in waves]

    def opened():
        return Room(hearing, Fanout({"listener": Listener(told)}), known=tmp_path / "told")

    room, resumed, ended = opened(), 0, 0
    for page in pages:
        page.connect(room)
    while any(page.sent < len(page.log) for page in pages):
        page = rng.choice(pages)
        page.send(room, rng.randrange(1, 5))
        chance = rng.random()
        if chance < 0.6:
            page.take(room)
        elif chance < 0.8:  # its connection is lost, with what had not come; the server may not know that yet
            page.take(room, rng.randrange(3))
            if chance > 0.7:
                room.do((page.me, Gone()))
                room.hall.look(time.monotonic() + 61)
                ended += page.welcome["session"] not in room.hall.seats
            page.connect(room)
            resumed += page.welcome["resumed"]
        elif chance < 0.83:  # kill -9
            for one in pages:
                one.take(room, rng.choice([None, 0, 1]))
            room = opened()
            for one in pages:
                one.connect(room)
                resumed += one.welcome["resumed"]
    for page, wave in zip(pages, waves):
        page.take(room)
        while page.sent < len(page.log):
            page.send(room)
        room.do(*((page.me, order) for order in page.session.take('{"type":"end"}', 0.0)))
        assert room.ends(page.me) == [1000]
        page.take(room)
        posteriors, events = offline(hearing, wave, room.hall.steps)
        assert np.array_equal(page.told.posteriors(), posteriors)
        assert sorted(page.told.events) == sorted((event.label, event.start) for event in events) and events
        assert {(page.welcome["session"], event.label, event.start) for event in events} <= set(told)
    assert len(told) == len(set(told)) and resumed > 10 and ended > 5


@pytest.mark.parametrize("late", ["ended", "killed", "elsewhere"])
def test_events_and_gaps_are_told_once_even_if_the_client_heard_of_none(hearing, tmp_path, late):
    """The client has nothing but its first seal; a server that shares no disk with the first one cannot know."""
    wave, told = (noise(32000) * 32767).astype(np.int16), []
    room = Room(hearing, Fanout({"listener": Listener(told)}), known=tmp_path / "told")
    seal, session = enter(room, "me")["seal"], begun()
    sent = [*sound_frames(wave[:16000], 1600), frame(GAP, 16000, 32000, b"asleep")]
    say(room, "me", session, *sent)
    first = list(told)
    if late == "ended":
        room.do(("me", Gone()))
        room.hall.look(time.monotonic() + 61)
        first = list(told)  # with what was open
    else:
        other = tmp_path / "other" if late == "elsewhere" else tmp_path / "told"
        room = Room(hearing, Fanout({"listener": Listener(told)}), known=other)
    assert enter(room, "again", resume=seal)["resumed"]
    say(room, "again", again := begun(), *sent, *sound_frames(wave[16000:], 1600, 48000), '{"type":"end"}')
    assert again.ended and len(first) > 2 and len({label for _, label, _ in first}) > 1
    more = told[len(first) :]
    if late == "elsewhere":
        assert more[: len(first)] == first
    else:
        assert len(set(told)) == len(told) and min(start for *_, start in more) >= 48000


def test_what_was_told_is_forgotten_with_the_seals_and_kept_in_memory_if_the_disk_fails(tmp_path, capsys):
    once = Once(tmp_path / "told")
    once.add("a" * 16, "high", 7, 1000.9)
    once.forget(4600.5)  # when a seal of then can still be opened
    assert once.knows("a" * 16, "high", 7)
    once.forget(4601.0)
    assert not once.knows("a" * 16, "high", 7)
    once.add("a" * 16, "high", 7, time.time())
    assert all(one.knows("a" * 16, "high", 7) for one in (once, Once(tmp_path / "told")))
    assert not any(once.knows(*other) for other in [("b" * 16, "high", 7), ("a" * 16, "low", 7), ("a" * 16, "high", 8)])
    (tmp_path / "bad").write_bytes(b"no database" * 100)
    for path in (tmp_path / "bad", tmp_path / "nowhere" / "told"):
        once = Once(path)
        assert str(path) in capsys.readouterr().err and not once.knows("a" * 16, "high", 7)
        once.add("a" * 16, "high", 7, time.time())
        assert once.knows("a" * 16, "high", 7)


def heard(room, me):
    """All that a client was told."""
    told = Told()
    rows = [told.take(one.text, len(room.hall.model.labels)) for one in room.told[me] if one.text]
    return told, rows


def say(room, me, session, *sent):
    room.do(*((me, order) for one in sent for order in session.take(one, 0.0)))


def enter(room, me, **hello):
    room.do((me, Enter(Hello(type="hello", token="", **hello))))
    return json.loads(room.told[me][0].text)


def test_sinks_get_every_clients_events_under_its_name(hearing, tmp_path):
    sinks = {"jsonl": JSONLines(str(tmp_path / "a.jsonl")), "sqlite": SQLite(str(tmp_path / "a.sqlite"))}
    sinks["clips"] = Clips(str(tmp_path / "clips"), before=0.1, after=0.1, format="wav")
    with Fanout(sinks) as sink:
        sink.check_several()
        sink.setup(hearing.labels, ["background"])
        sink.start(StreamInfo("browser", hearing.labels, hearing.rate, hearing.hop))
        room, wanted = Room(hearing, sink), {}
        clients = enumerate(["hall\n", "", "attic"])
        waves = {name: (noise(16000 * 3, seed) * 32767).astype(np.int16) for seed, name in clients}
        sessions = {name: begun() for name in waves}
        names = {name: f"{name.strip() or 'client'} {enter(room, name, name=name)['session']}" for name in waves}
        for frames in zip(*(sound_frames(wave, 1600) for wave in waves.values())):
            for name, one in zip(waves, frames):
                say(room, name, sessions[name], one)
        say(room, "attic", sessions["attic"], frame(GAP, 48000, 1600, b"asleep"))
        for name, wave in waves.items():
            say(room, name, sessions[name], '{"type":"end"}')
            wanted[name] = [(event.label, event.start / 16000) for event in offline(hearing, wave, room.hall.steps)[1]]
    rows = [row for row in read_jsonl(tmp_path / "a.jsonl") if row["type"] == "event"]
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as database:
        stored, gaps, clips = (
            database.execute(f"SELECT name, {columns} FROM {table} JOIN streams ON streams.id = stream").fetchall()
            for table, columns in (
                ("events", "label, start, time"), ("gaps", "gaps.start, why"), ("clips", "label, start, path"),
            )
        )  # fmt: skip
    for name, events in wanted.items():
        shown = names[name].replace("hall", "hall\\n") if name == "hall\n" else names[name]
        assert [(row["label"], row["start"]) for row in rows if row["stream"] == shown] == events
        assert [(label, start) for one, label, start, _ in stored if one == shown] == events and events
        assert sorted((label, start) for one, label, start, _ in clips if one == shown) == sorted(events)
    assert gaps == [(names["attic"], 3.0, "asleep")] and all(time.endswith("Z") for *_, time in stored)
    assert all((tmp_path / path).is_file() for *_, path in clips)


def test_a_session_has_one_client_and_a_seat_for_a_minute(hearing, monkeypatch):
    room, wave = Room(hearing), (noise(16000) * 32767).astype(np.int16)
    welcome = enter(room, "first")
    session = begun()
    say(room, "first", session, *sound_frames(wave[:8000], 800))
    again = enter(room, "second", resume=welcome["seal"])
    assert room.ends("first") == [messages.TAKEN_OVER] and again["session"] == welcome["session"]
    assert (again["resumed"], again["from"], again["first"]) == (True, 0, 0)
    say(room, "first", session, *sound_frames(wave[8000:], 800, 8000))  # of no use any more
    assert room.hall.seats[welcome["session"]].stream.received == 0
    room.do(("second", Gone()))
    assert len(room.hall.seats) == 1
    room.hall.look(time.monotonic() + 61)
    assert not room.hall.seats and not room.hall.scheduler.streams


def test_what_cannot_go_on_is_a_new_session_at_the_clients_tick_and_says_why(hearing):
    room, other = Room(hearing), Room(small_model(*LIVELY, seed=5, labels=("background", "high", "low")))
    longer, foreign = Room(hearing, block=0.2), Room(hearing, key=b"K" * 32)
    cases = (other, "of the model"), (longer, "another length"), (foreign, "not of this")
    for number, (place, why) in enumerate(cases):
        seal = enter(place, number)["seal"]
        welcome = enter(room, number, resume=seal, tick=123_456, answered=7)
        assert not welcome["resumed"] and why in welcome["why"] and welcome["from"] == 123_456
        assert room.hall.seats[welcome["session"]].told == welcome["first"] > 7
        session = begun(at=123_456)
        say(room, number, session, *sound_frames((noise(16000) * 32767).astype(np.int16), 1600, 123_456))
        told, _ = heard(room, number)
        assert min(told.steps) == welcome["first"] == -(-123_456 // hearing.hop) and told.ack > 123_456
    assert other.hall.facts["fingerprint"] != room.hall.facts["fingerprint"]


def test_gaps_reset_or_keep_the_state_as_the_source_says(hearing):
    wave = (noise(16000) * 32767).astype(np.int16)
    for how, why in [("reset", "asleep"), ("keep", "asleep"), ("reset", "behind")]:
        room, session = Room(hearing), begun(gap=how)
        enter(room, "me")
        say(room, "me", session, *sound_frames(wave[:8000], 1600), frame(GAP, 8000, 32000, why.encode()))
        say(room, "me", session, *sound_frames(wave[8000:], 1600, 40000), '{"type":"end"}')
        told, rows = heard(room, "me")
        assert told.gaps == [{"start": 8000, "length": 32000, "why": why}]
        stream, scheduler = Stream(hearing, room.hall.steps), Scheduler(hearing, room.hall.steps, 64)
        scheduler.join(stream)
        scheduler.feed(stream, wave[:8000] / np.float32(32768))
        answers = scheduler.gap(stream, 32000, "keep" if why == "behind" else how)
        scheduler.feed(stream, wave[8000:] / np.float32(32768))
        answers += scheduler.close(stream)
        steps = {one.first + k: row for one in answers for k, row in enumerate(one.posteriors)}
        assert steps.keys() == told.steps.keys() and all(np.array_equal(steps[k], told.steps[k]) for k in steps)
        nexts = [row["next"] for row in rows if row["type"] == "answer"]
        assert nexts == sorted(nexts) and nexts[-1] == 48000 // hearing.hop


@pytest.mark.parametrize("options", [PICTURES, BOTH], ids=["pictures", "both"])
def test_pictures_pass_the_one_resize_routine_and_damaged_ones_end_the_connection(options):
    model = lively_model(*options, *LIVELY, times=1.0)
    room, both = Room(model), model.spec.both
    session, images = begun(model.spec, credit=10**9), []
    enter(room, "me")
    grain, wave = model.spec.grain, (noise(16000 * 2) * 32767).astype(np.int16)
    for k in range(20):
        data = jpeg(k, 64, 48)
        images.append(model.spec.picture.fit(decoded(data)))
        say(room, "me", session, frame(PICTURE, k * grain, 0 if both else 1, data))
        if both:
            say(room, "me", session, *sound_frames(wave[k * grain : (k + 1) * grain], grain, k * grain))
    say(room, "me", session, '{"type":"end"}')
    told, _ = heard(room, "me")
    stream, scheduler = Stream(model, room.hall.steps), Scheduler(model, room.hall.steps, 64)
    scheduler.join(stream)
    sound = wave[: 20 * grain] / np.float32(32768)
    scheduler.feed(stream, (sound, np.stack(images), np.ones((20, 2), np.float32)) if both else np.stack(images))
    assert np.array_equal(told.posteriors(), np.concatenate([one.posteriors for one in scheduler.close(stream)]))
    session = begun(model.spec)
    enter(room, "bad")
    header = jpeg(0, 64, 48)
    say(room, "bad", session, frame(PICTURE, 0, 0 if both else 1, header[:200]))
    if both:
        say(room, "bad", session, *sound_frames(wave[:grain], grain))
    assert room.ends("bad") == [messages.MALFORMED]
