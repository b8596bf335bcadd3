"""sink=sqlite: rows that survive, tables that are documented, and the page that python -m pipeline.report makes of them."""

import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from html import unescape
from itertools import permutations
from urllib.parse import unquote

import pytest
from conftest import ROOT, configured, no_file_above, ran, read_jsonl, until
from played import LIVELY, NOON, Shared, event, files, play
from test_outputs import HOSTILE

from pipeline.core.errors import ConfigError
from pipeline.core.event_database import TABLES, VERSION, open_database
from pipeline.core.text import clean
from pipeline.report.comparison import main
from pipeline.sinks.clips import Clips
from pipeline.sinks.fanout import Fanout
from pipeline.sinks.items import Clock, StreamInfo, StreamWarning, TimedGap
from pipeline.sinks.jsonl import JSONLines
from pipeline.sinks.sqlite import SQLite


def begun(path, name="a stream", **others):
    target = Fanout({"sqlite": SQLite(str(path)), **others})
    target.start(StreamInfo(name, ["dog", "cat"], 8000, 80))
    return target


def rows(path, query, *values):
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query, values).fetchall()


def count(path, what="events"):
    return rows(path, f"SELECT count(*) FROM {what}")[0][0]


# Rows


def test_a_file_of_the_first_version_is_read_as_it_is_and_gains_what_is_new_when_written_to(tmp_path):
    path = tmp_path / "events.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(TABLES.replace(", details TEXT", "").rsplit("CREATE INDEX", 1)[0])
        database.executescript("PRAGMA application_id = 0x52697675; PRAGMA user_version = 1;"
                               "INSERT INTO streams VALUES (1, 'old', '2026-11-29T12:00:00.000Z');"
                               "INSERT INTO events VALUES (1, 1, NULL, 'dog', 1, 2, 1.5, 0.9);")  # fmt: skip
    assert main([str(path), "--since=all", f"--out={tmp_path / 'old.html'}"]) == 0
    assert rows(path, "PRAGMA user_version") == [(1,)]
    with begun(path) as target:
        target.write(replace(event("cat", 3.0, 4.0), details="purrs"))
    assert rows(path, "SELECT label, details FROM events") == [("dog", None), ("cat", "purrs")]
    made = {name for (name,) in rows(path, "SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert "events_stream" in made and rows(path, "PRAGMA user_version") == [(VERSION,)]


def test_rows_are_as_the_documents_say(tmp_path):
    path = tmp_path / "new" / "events.sqlite"
    with begun(path) as target:
        target.write(event("dog", 1.0, 2.5))
        target.write(Clock(10.0, NOON + 10))
        target.write(event("cat", 9.5, 10.0, 0.75))
        target.write(TimedGap(10.0, 2.25, "unplugged", "reset"))
        target.write(StreamWarning(12.5, "clipped", "too loud"))
        assert count(path) == 2  # at once
    assert rows(path, "SELECT stream, time, label, start, end, peak, score FROM events") == [
        (1, None, "dog", 1.0, 2.5, 1.0, 0.9), (1, "2026-11-30T12:00:09.750Z", "cat", 9.5, 10.0, 9.5, 0.75)
    ]  # fmt: skip
    assert rows(path, "SELECT stream, time, start, length, why, how FROM gaps") == [
        (1, "2026-11-30T12:00:10.250Z", 10.0, 2.25, "unplugged", "reset")
    ]
    assert rows(path, "SELECT stream, time, start, code, text FROM warnings") == [
        (1, "2026-11-30T12:00:12.750Z", 12.5, "clipped", "too loud")
    ]
    ((number, name, began),) = rows(path, "SELECT * FROM streams")
    assert (number, name) == (1, "a stream") and abs(datetime.fromisoformat(began).timestamp() - time.time()) < 10
    assert rows(path, "PRAGMA user_version") == [(VERSION,)] and rows(path, "PRAGMA journal_mode") == [("wal",)]
    for where, index in (("time > '2026'", "events_time"), ("label = 'dog' AND time > '2026'", "events_label")):
        assert index in str(rows(path, f"EXPLAIN QUERY PLAN SELECT * FROM events WHERE {where}"))
    assert [one.name for one in path.parent.iterdir()] == [path.name]  # what is beside it while it is written is gone


def test_the_documents_name_every_column():
    text = (ROOT / "docs" / "sinks.md").read_text()
    for name, columns in re.findall(r"CREATE TABLE (\w+) \((.*?)\);", TABLES, re.S):
        (row,) = re.findall(rf"^\| `{name}` \| (`id`[^|]*) \|", text, re.M)
        assert re.findall(r"`(\w+)`", row) == re.findall(r"(?:^|, |\n  )(\w+) (?:TEXT|REAL|INTEGER)", columns), name
    assert f"version {VERSION}" in text


def test_the_queries_of_the_documents(tmp_path):
    path = tmp_path / "e.sqlite"
    with begun(path) as target:
        target.write(Clock(0.0, NOON))
        for score in (0.8, 0.95):
            target.write(event("dog", score, 2.0, score))
    queries = re.findall(r'sqlite3 events\.sqlite "(SELECT[^"]*)"', (ROOT / "docs" / "sinks.md").read_text())
    assert [len(rows(path, query)) for query in queries] == [2, 1]


def test_runs_are_added(tmp_path):
    path = tmp_path / "e.sqlite"
    for number in range(3):
        with begun(path, f"run {number}") as target:
            target.write(event("dog", number, number + 1))
    query = "SELECT name, events.start FROM events JOIN streams ON streams.id = stream"
    assert rows(path, query) == [(f"run {number}", float(number)) for number in range(3)]


def test_hostile_labels(tmp_path):
    path = tmp_path / "e.sqlite"
    with begun(path, "a\ud800\nb") as target:
        for label in HOSTILE:
            target.write(event(label, 1, 2))
    assert [label for (label,) in rows(path, "SELECT label FROM events ORDER BY id")] == list(map(clean, HOSTILE))


WRITER = """
import sys; sys.path[:0] = [{root!r}]
from pipeline.sinks.items import StreamInfo, TimedEvent
from pipeline.sinks.sqlite import SQLite
with SQLite({path!r}) as target:
    target.start(StreamInfo("a stream", ["dog"], 8000, 80))
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range({count}):
        target.write(TimedEvent(number, number + 1, number, "dog", 0.5))
        target.flush()
        print(number, flush=True)
"""


def writer(path, count):
    code = WRITER.format(root=str(ROOT), path=str(path), count=count)
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_two_programs_write_at_once_and_a_kill_loses_nothing(tmp_path):
    """What was written before kill -9 is there, and the other goes on."""
    path = tmp_path / "e.sqlite"
    with writer(path, 10**6) as killed, writer(path, 1500) as other:
        for process in (killed, other):
            assert process.stdout.readline() == b"ready\n"
        for process in (killed, other):
            process.stdin.write(b"\n")
            process.stdin.flush()
        for _ in range(400):
            last = killed.stdout.readline()
        killed.send_signal(signal.SIGKILL)
        written = 1 + int([last, *killed.stdout.read().split()][-1])
        assert other.stdout.read().split()[-1] == b"1499"
    assert (killed.returncode, other.returncode) == (-signal.SIGKILL, 0)
    found = dict(rows(path, "SELECT stream, count(*) FROM events GROUP BY stream"))
    assert sorted(found) == [1, 2] and 1500 in found.values() and 400 <= written < 10**6
    (of_killed,) = [value for value in found.values() if value != 1500] or [1500]
    assert of_killed - written in (0, 1)  # the last may not have been told any more
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    with begun(path) as target:
        target.write(event("cat", 1, 2))
    assert count(path) == of_killed + 1501


def test_programs_that_begin_at_once_make_one_database(tmp_path):
    """As threads: they open the file at the same moment, and none of them sees half of the tables."""
    for turn in range(5):
        path, meeting = tmp_path / f"{turn}.sqlite", threading.Barrier(8)

        def begin(path=path, meeting=meeting):
            meeting.wait()
            open_database(path, "key", write=True).close()

        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(begin) for _ in range(8)]:
                done.result()
        assert count(path) == 0 and rows(path, "PRAGMA user_version") == [(VERSION,)]


# What is refused


def made(path, statement):
    with closing(sqlite3.connect(path)) as database:
        database.executescript(statement)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("a list of things to buy, long enough to be more than a header" * 9), "is no SQLite database; choose"),
        (lambda path: made(path, "CREATE TABLE mine (x)"), "is a database, but none of sink=sqlite; choose"),
        (lambda path: made(path, "CREATE TABLE mine (x); PRAGMA user_version = 1"), "is a database, but none of sink=sqlite; choose"),
        (lambda path: (begun(path).close(), made(path, f"PRAGMA user_version = {VERSION + 1}")),
         rf"is of version {VERSION + 1}, written by a newer Rivulet; this one knows version {VERSION}"),
    ],
)  # fmt: skip
def test_other_files_are_refused_and_left_alone(tmp_path, make, message, capsys):
    path = tmp_path / "e.sqlite"
    make(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=rf"sink.sqlite.path: {path} {message}"):
        SQLite(str(path))
    assert main([str(path)]) == 2 and re.search(message, capsys.readouterr().err)
    assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["e.sqlite"]


def test_wrong_use(tmp_path):
    with pytest.raises(IsADirectoryError):
        SQLite(str(tmp_path))
    with pytest.raises(OSError):
        SQLite("/proc/no/e.sqlite")
    SQLite(str(tmp_path / "new" / "e.sqlite"))
    assert not list((tmp_path / "new").iterdir())  # nothing before the source has given anything


def test_a_full_disk_ends_it_and_the_others_go_on(tmp_path, capsys):
    path = tmp_path / "e.sqlite"
    target = begun(path, jsonl=JSONLines(str(tmp_path / "e.jsonl")))
    with pytest.raises(OSError, match=r"e\.sqlite"), target:
        with no_file_above(1_000_000):
            for number in range(300):
                target.write(event("dog" * 30, number, number + 1))
                target.flush()
        assert len(read_jsonl(tmp_path / "e.jsonl")) == 300
    assert "sink=sqlite has failed, the others go on" in capsys.readouterr().err
    assert 20 < count(path) < 300 and rows(path, "PRAGMA integrity_check") == [("ok",)]


# Clips


@pytest.mark.parametrize("order", list(permutations(("clips", "sqlite"))))
def test_clips_are_linked_to_their_events(tmp_path, order):
    path = tmp_path / "db" / "e.sqlite"
    sinks = {"clips": Clips(str(tmp_path / "clips"), longest=5.0), "sqlite": SQLite(str(path))}
    target = Fanout({name: sinks[name] for name in order})
    target.start(StreamInfo("a stream", ["dog", "cat"], 8000, 80))
    with target:  # one that is written while the event goes on, one amid the stream, one at its end
        play(target, 40, [event("dog", 5.0, 30.0), event("cat", 10.0, 11.0), event("cat", 39.0, 39.7)], live=NOON)
    query = "SELECT label, start, first, last, path FROM events JOIN clips USING (stream, label, start) ORDER BY start"
    found = rows(path, query)
    assert [row[:4] for row in found] == [("dog", 5.0, 3.0, 11.0), ("cat", 10.0, 8.0, 12.0), ("cat", 39.0, 37.0, 40.0)]
    assert sorted((path.parent / row[4]).name for row in found) == files(tmp_path / "clips")
    assert all((path.parent / row[4]).is_file() for row in found)


def test_a_sink_that_fails_over_a_clip_is_left_out(tmp_path, capsys):
    class Failing(Shared):
        def write(self, item):
            super().write(item)
            self.flush()

        def flush(self):
            if self.clips:
                raise OSError(28, "No space left on device")

    for order in (1, -1):
        clips, failing = Clips(str(tmp_path / str(order))), Failing()
        sinks = [("clips", clips), ("failing", failing)]
        target = Fanout(dict(sinks[::order]))
        target.start(StreamInfo("a stream", ["dog"], 8000, 80))
        play(target, 20, [event("dog", 5.0, 6.0)])
        until(lambda clips=clips, failing=failing: clips.written or failing.clips)
        play(target, 30, since=20)
        with pytest.raises(OSError, match="No space"):
            target.close()
        assert "sink=failing has failed" in capsys.readouterr().err


def test_infer_writes_what_other_sinks_write(pulses, tmp_path):
    out = tmp_path / "e.jsonl"
    ran("infer.py", f"checkpoint={pulses}", f"source.path={pulses}/street.wav", *LIVELY, "sink=[sqlite,jsonl,clips]",
        f"sink.sqlite.path={tmp_path}/e.sqlite", f"sink.jsonl.path={out}", f"sink.clips.path={tmp_path}/clips")  # fmt: skip
    found = rows(tmp_path / "e.sqlite", "SELECT label, start, end, peak, score FROM events ORDER BY id")
    assert found == [tuple(row[key] for key in ("label", "start", "end", "peak", "score")) for row in read_jsonl(out)]
    assert count(tmp_path / "e.sqlite", "events JOIN clips USING (stream, label, start)") == len(found) >= 3
    assert rows(tmp_path / "e.sqlite", "SELECT DISTINCT time FROM events") == [(None,)]
    assert rows(tmp_path / "e.sqlite", "SELECT name FROM streams") == [(str(pulses / "street.wav"),)]
    configured("infer", "sink=sqlite")


# The page


@pytest.fixture
def day(tmp_path):
    """A day of a microphone: dogs each hour of the last five, a cat, and one of long ago; and a recording."""
    path, now = tmp_path / "day.sqlite", time.time()
    with begun(path, "micro <b>phone") as target:
        target.write(Clock(0.0, now))
        for hours in (0, 1, 1, 2, 3, 4, 4, 4, 4):
            target.write(event("dog", -3600.0 * hours, 1 - 3600.0 * hours))
        target.write(event("<script>cat", -3600.0, 1 - 3600.0))
        target.write(event("old", -86400.0 * 40, 1 - 86400.0 * 40))
        target.write(TimedGap(-60.0, 90.0, "unplugged", "reset"))
        target.write(StreamWarning(-50.0, "clipped", "too <loud>"))
    with begun(path, "street.wav") as target:
        target.write(event("car", 12.5, 14.5, 0.5))
    return path, datetime.fromtimestamp(now).astimezone()


def page_of(path, capsys, *more):
    assert main([str(path), *more]) == 0, capsys.readouterr().err
    text = path.with_suffix(".html").read_text()
    assert "<script" not in text and "<b>phone" not in text
    return text


def figures(text):
    """The bars of each chart: how often, by the hour's name."""
    found = {}
    for chart in re.findall(r"<figure>.*?</figure>", text, re.S):
        label = unescape(re.search(r"<figcaption>(.*?)<span", chart, re.S)[1])
        found[label] = {name: int(number) for name, number in re.findall(r"<title>([^<]*): (\d+)</title>", chart)}
    return found


def test_the_page_says_what_was_heard_when(day, capsys):
    path, now = day
    text = page_of(path, capsys)
    assert f"11 events since {now - timedelta(days=1):%Y-%m-%d %H:%M}" in capsys.readouterr().out
    hours = [f"{now - timedelta(hours=hours):%m-%d %H:00}" for hours in range(5)]
    assert figures(text) == {"dog": dict(zip(hours, (1, 2, 1, 1, 4))), "<script>cat": {hours[1]: 1}}
    tiles = re.findall(r"<b>(.*?)</b><span>(.*?)</span><span>(.*?)</span>", text)
    assert tiles[:2] == [("11", "events", ""), ("3", "labels", "")]
    assert tiles[2:] == [("1", "gaps", "1.5\u00a0min lost"), ("1", "warnings", "")]
    assert "at 12.50 s" in text and "too &lt;loud&gt;" in text and "micro &lt;b&gt;phone" in text and "old" not in text


@pytest.mark.parametrize(
    ("since", "events", "bars"),
    [("all", 12, {"old"}), ("90d", 12, {"old"}), ("6w", 12, {"old"}), ("150min", 6, {}), ("2000-01-01", 12, {"old"}),
     ("0900-01-01", 12, {"old"}), ("700000d", 12, {"old"})],
)  # fmt: skip
def test_the_page_of_another_time(day, capsys, since, events, bars):
    path, now = day
    text = page_of(path, capsys, f"--since={since}")
    assert f"<b>{events}</b><span>events" in text
    assert {label for label in figures(text) if label == "old"} == set(bars)
    if "old" in bars:  # by days
        assert figures(text)["old"] == {f"{now - timedelta(days=40):%Y-%m-%d}": 1}


def test_clips_are_played_from_where_they_are(tmp_path, capsys):
    path, now = tmp_path / "a b" / "day #1.sqlite", time.time()
    target = Fanout({"clips": Clips(str(tmp_path / "my clips?")), "sqlite": SQLite(str(path))})
    target.start(StreamInfo("a stream", ["dog"], 8000, 80))
    with target:
        play(target, 30, [event("dog", 5.0, 6.0), event("Hände", 20.0, 21.0)], live=now - 60, shots=True)
    (tmp_path / "pages").mkdir()
    out = tmp_path / "pages" / "x.html"
    assert main([str(path), f"out={out}"]) == 0 and str(out) in capsys.readouterr().out
    kinds = re.findall(r"<(audio|video) [^>]*src=\"([^\"]*)\"", out.read_text())
    assert [kind for kind, _ in kinds] == ["audio", "video"] * 2
    assert not any(set("? #") & set(address) for _, address in kinds)
    places = [(out.parent / unquote(address)).resolve() for _, address in kinds]
    assert sorted(place.name for place in places) == files(tmp_path / "my clips?")
    assert all(place.is_file() for place in places)
    assert "media-src data: 'self' file:" in out.read_text()
    places[0].unlink()
    assert main([str(path), "--out", str(out)]) == 0
    assert "removed" in out.read_text() and out.read_text().count("<audio") == 1


def test_a_page_while_it_is_written_and_of_nothing(tmp_path, capsys):
    path = tmp_path / "e.sqlite"
    with begun(path) as target:
        for more in ([], ["--since=all"]):
            assert "There are no events yet" in page_of(path, capsys, *more)
        target.write(Clock(0.0, NOON))
        target.write(event("dog", -(10**8), 1 - 10**8))
        assert "The newest event is of 2023-" in page_of(path, capsys)


@pytest.mark.parametrize(("arguments", "message"), [
    (["none.sqlite"], "none.sqlite does not exist; expected a database of events"),
    (["--since=yesterday", "{day}"], "--since: got 'yesterday'; expected an age"),
    (["--since=9999999999d", "{day}"], "--since: got"),
    (["{day}", "out={day}"], "is the database; choose another name"),
    (["{day}", "--out=/proc/x.html"], "cannot write /proc/x.html"),
])  # fmt: skip
def test_pages_that_cannot_be_made(day, capsys, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.html").touch()
    code = main([one.format(day=day[0]) for one in arguments])
    assert code == (74 if "cannot write" in message else 2) and message in capsys.readouterr().err


def test_a_misspelt_option_is_not_guessed(day, capsys):
    with pytest.raises(SystemExit):
        main(["--sinc=7d", str(day[0])])
    assert "unrecognized arguments: --sinc=7d" in capsys.readouterr().err
