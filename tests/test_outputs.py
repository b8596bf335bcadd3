"""Where results go besides pictures: files that survive, servers and programs that fail, terminals of all kinds."""

import json
import os
import re
import signal
import socket
import ssl
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import certificate, free_port, no_file_above, read_csv, read_jsonl, until

from pipeline.core.errors import ConfigError, MediaError
from pipeline.core.journal import Journal
from pipeline.core.spreadsheet import unprotect
from pipeline.core.text import clean
from pipeline.sinks.command import Command
from pipeline.sinks.console import Console
from pipeline.sinks.csv import CSV
from pipeline.sinks.fanout import Fanout
from pipeline.sinks.items import FileResult, OpenEvents, Sound, Steps, StreamInfo, StreamWarning, TimedEvent, TimedGap
from pipeline.sinks.jsonl import JSONLines
from pipeline.sinks.labels import Labels
from pipeline.sinks.panel import FLOOR_DBFS, Spectrogram, decibels
from pipeline.sinks.sink import Closed, Sink
from pipeline.sinks.vtt import VTT
from pipeline.sinks.webhook import Webhook
from pipeline.streaming.interrupts import Interrupts, welcoming

RATE = 100
HOSTILE = [
    "=cmd|' /C calc'!A0", "+1", "-rm", "@SUM(1)", "\t=1", "--> 00:00", "<b>&amp;", "a\tb", "two\nlines", "\x1b[31mred",
    "\u202eabc", "$(touch PWNED)", "`x`", "it's", 'a "b"', "{start}", "\ud800", "time", "status", "path", "score", "nul\0",
]  # fmt: skip


def begun(sink, labels=("a", "b")):
    sink.start(StreamInfo("a stream", list(labels), RATE, 1))
    return sink


def event(label="a", start=1.0, end=2.5, score=0.9):
    return TimedEvent(start, end, start + 0.1, label, score)


def send(sink, items):
    for item in items:
        sink.write(item)
    sink.flush()


# Journals


def test_a_result_is_left_alone_until_there_is_another(tmp_path):
    kept = tmp_path / "old.csv"
    kept.write_text("an hour's work")
    for make in (CSV, JSONLines, Labels, VTT):
        with make(str(kept)):
            pass
        with make(str(tmp_path / "new")):
            pass
    assert kept.read_text() == "an hour's work" and list(tmp_path.iterdir()) == [kept]
    with begun(CSV(str(kept))):
        assert kept.read_text() == "start,end,peak,label,score\n"


@pytest.mark.parametrize("kind", [CSV, JSONLines, Labels, VTT])
def test_rows_are_there_at_once_and_forced_to_the_disk_each_second(kind, tmp_path, monkeypatch):
    forced, now, path = [], [0.0], tmp_path / "out"
    monkeypatch.setattr("pipeline.core.atomic.os.fsync", lambda file: forced.append(os.fstat(file).st_size))
    monkeypatch.setattr("pipeline.core.journal.time.monotonic", lambda: now[0])
    with begun(kind(str(path))) as sink, begun(kind(str(tmp_path / "other"), sync=None)) as never:
        send(sink, [event()])
        assert "a" in path.read_text() and not forced
        now[0] = 5.0
        sink.flush()  # though no others follow
        sink.flush()
        assert forced == [path.stat().st_size]
        send(never, [event()])
        never.close()
        assert len(forced) == 1


def test_two_runs_never_write_one_file(tmp_path):
    """Neither the file itself, nor what will take its place, nor one that has just taken another's."""
    path = tmp_path / "rows"
    for whole in (False, True):
        first, second = Journal(str(path)), Journal(str(path))
        first.whole = second.whole = whole
        first.write("first\n")
        with pytest.raises(OSError, match="another run"):
            second.write("second\n")
        first.finish()
        assert path.read_text() == "first\n"
        first.close()
        second.write("second\n")
        second.finish()
        second.close()
        assert path.read_text() == "second\n" and list(tmp_path.iterdir()) == [path]


def test_of_a_row_without_room_nothing_is_left(tmp_path):
    path = tmp_path / "rows.jsonl"
    sink, told = begun(JSONLines(str(path))), 0
    with no_file_above(1000), pytest.raises(OSError) as caught, sink:
        for told in range(100):
            send(sink, [event("a" * told)])
    assert caught.value.filename == str(path) and 800 < path.stat().st_size <= 1000
    assert [len(row["label"]) for row in read_jsonl(path)] == list(range(told))


def test_labels_that_are_named_like_columns_stand_apart(tmp_path):
    labels = ["time", "age", "type", "path", "score", "label", "status", "p_time", "posteriors"]
    scores = np.linspace(0, 0.8, 9, dtype=np.float32)[None]
    result = FileResult("x.wav", status="ok", label="path", score=0.5, posteriors=dict(zip(labels, scores[0].tolist())))
    sinks = {"csv": CSV(str(tmp_path / "t.csv"), True), "jsonl": JSONLines(str(tmp_path / "t.jsonl"), True),
             "files": CSV(str(tmp_path / "files.csv"))}  # fmt: skip
    with begun(Fanout(sinks), labels) as sink:
        sink.write(Steps(4, scores, 0.25))
    with CSV(str(tmp_path / "files.csv")) as sink:
        sink.write(result)
        sink.finish()
    (found,) = read_csv(tmp_path / "t.posteriors.csv")
    assert (found["time"], found["age"]) == ("0.05", "0.25") and len(found) == 11
    assert [float(found[f"p_{label}"]) for label in labels] == pytest.approx(scores[0].tolist())
    (row,) = read_jsonl(tmp_path / "t.jsonl")
    assert (row["type"], row["time"], row["age"]) == ("step", 0.05, 0.25)
    assert list(row["posteriors"].values()) == pytest.approx(scores[0].tolist())
    (found,) = read_csv(tmp_path / "files.csv")
    assert (found["path"], found["status"], found["label"]) == ("x.wav", "ok", "path")
    assert float(found["p_path"]) == pytest.approx(0.3)


# Hostile labels


def test_hostile_labels_are_one_harmless_line_everywhere(tmp_path, capsys):
    names = {"csv": CSV, "jsonl": JSONLines, "labels": Labels, "vtt": VTT}
    sinks = {name: make(str(tmp_path / name)) for name, make in names.items()}
    with begun(Fanout(sinks | {"console": Console()})) as sink:
        send(sink, [event(label, number, number + 0.5) for number, label in enumerate(HOSTILE)])
    cells = [row["label"] for row in read_csv(tmp_path / "csv")]
    assert [unprotect(cell) for cell in cells] == [clean(label) for label in HOSTILE]
    assert [cell for cell in cells if cell.startswith("'")] == ["'=cmd|' /C calc'!A0", "'@SUM(1)", "'--> 00:00"]
    assert [row["label"] for row in read_jsonl(tmp_path / "jsonl")] == HOSTILE
    track = [line.split("\t") for line in (tmp_path / "labels").read_text(encoding="utf-8").split("\n")[:-1]]
    assert track == [[f"{n:.6f}", f"{n + 0.5:.6f}", f"{clean(label)} 0.90"] for n, label in enumerate(HOSTILE)]
    said = capsys.readouterr().out
    steering = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
    for text in (said, *((tmp_path / name).read_text(encoding="utf-8") for name in ("labels", "vtt", "csv"))):
        assert not steering.search(text.replace("\t", ""))
    assert said.count("\n") == len(HOSTILE) + 2 and "\\x1b[31mred" in said


def cues(path):
    """Times in seconds and text of subtitles, as FFmpeg reads them."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.subtitles
        packets = [packet for packet in container.demux(stream) if packet.size]
        return [(float(p.pts * p.time_base), float(p.duration * p.time_base), bytes(p).decode()) for p in packets]


def test_subtitles_are_read_by_ffmpeg_in_the_order_of_their_starts(tmp_path):
    path = tmp_path / "x.vtt"
    with begun(VTT(str(path))) as sink:
        send(sink, [event("short", 5, 6), event("long", 1, 7), event("late", 3600, 3661.25)])
        assert len(cues(path)) == 3  # already before the end
    assert cues(path) == [(1, 6, "long 0.90"), (5, 1, "short 0.90"), (3600, 61.25, "late 0.90")]
    assert list(tmp_path.iterdir()) == [path]
    with begun(VTT(str(path))) as sink:
        send(sink, [event(label, n, n + 0.99) for n, label in enumerate(HOSTILE)])
    found = cues(path)
    assert [start for start, _, _ in found] == list(range(len(HOSTILE)))
    assert found[HOSTILE.index("--> 00:00")][2] == "--&gt; 00:00 0.90"
    assert found[HOSTILE.index("<b>&amp;")][2] == "&lt;b&gt;&amp;amp; 0.90"


# Several at once


class Weak(Sink):
    """Fails at one of its events, or in the end."""

    def __init__(self, error=None, at=3):
        self.error, self.at, self.count, self.closed = error, at, 0, 0

    def write(self, item):
        self.count += 1
        if self.count >= self.at:
            raise self.error

    def close(self):
        self.closed += 1
        if self.error and self.count < self.at:
            raise self.error


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "x.csv"), MediaError("device_lost", "gone")])
def test_a_sink_that_fails_does_not_silence_the_others(tmp_path, capsys, error):
    weak = Weak(error)
    path = tmp_path / "rows.jsonl"
    with pytest.raises(type(error)) as caught, begun(Fanout({"weak": weak, "jsonl": JSONLines(str(path))})) as sink:
        for _ in range(5):
            send(sink, [event()])
    assert caught.value is error and len(path.read_text().splitlines()) == 5
    assert weak.count == 3 and weak.closed == 1
    assert capsys.readouterr().err.count("sink=weak has failed, the others go on") == 1
    with pytest.raises(type(error)):  # it is the last one
        send(begun(Fanout({"weak": Weak(error)})), [event()] * 3)
    with pytest.raises(type(error)):  # others end their files
        begun(Fanout({"bad": Weak(error), "weak": (weak := Weak())})).close()
    assert weak.closed == 1


def test_a_closed_window_is_told_after_all_have_got_the_picture():
    with pytest.raises(Closed):
        begun(Fanout({"shut": Weak(Closed(), at=1), "weak": (weak := Weak())})).write(event())
    assert weak.count == 1


def test_two_sinks_do_not_mix_on_standard_output(tmp_path):
    with pytest.raises(ConfigError, match=r"sink\.jsonl\.path: is not set, but console writes to standard output, too"):
        Fanout({"console": Console(), "jsonl": JSONLines()})
    with pytest.raises(ConfigError, match=r"sink\.vtt\.path"):
        Fanout({"csv": CSV(), "vtt": VTT()})
    with pytest.raises(ConfigError, match="sink: is empty"):
        Fanout({})
    Fanout({"console": Console(), "jsonl": JSONLines(str(tmp_path / "x"))})


# Signals


def test_signals_wait_until_they_harm_nothing():
    worked, seen = [], []

    def items():
        for number in range(5):
            seen.append(number)
            yield number

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        for number in welcoming(interrupts, items()):
            if number == 2:
                signal.raise_signal(signal.SIGINT)
            worked.append(number)
    assert worked == seen == [0, 1, 2] and signal.getsignal(signal.SIGINT) is before


def test_a_second_signal_is_obeyed_at_once():
    with pytest.raises(KeyboardInterrupt), Interrupts():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("was not obeyed")


def test_a_signal_is_obeyed_while_a_source_is_waited_for():
    def items():
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        yield time.sleep(5)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        list(welcoming(interrupts, items()))
    assert time.monotonic() - started < 2


# A web server


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.connections.append(self.connection)

    def do_POST(self):
        there, body = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        answer, after = there.answers.pop(0) if there.answers else (200, None)
        there.times.append(time.monotonic())
        there.got.append((answer, json.loads(body), dict(self.headers)))
        if answer == "hang":
            there.free.wait(20)
            return
        self.send_response(answer)
        for name, value in (("Location", 300 <= answer < 400 and "/elsewhere"), ("Retry-After", after)):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *given):
        pass


class Server(ThreadingHTTPServer):
    """A real server that answers each request in turn with a status (then 200), a status and Retry-After, or 'hang'."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, answers, port):
        super().__init__(("127.0.0.1", port), Answer)
        self.got, self.times, self.connections, self.free = [], [], [], threading.Event()
        self.answers = [answer if isinstance(answer, tuple) else (answer, None) for answer in answers]
        self.url = f"http://127.0.0.1:{self.server_port}/events"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, *given):
        """Whoever asked has gone."""

    def stop(self):
        self.free.set()
        self.shutdown()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def numbers(self):
        return [body["number"] for answer, body, _ in self.got if answer == 200]


@pytest.fixture
def server():
    made = []

    def make(*answers, port=0):
        made.append(Server(answers, port))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("pipeline.sinks.webhook.FIRST_WAIT_SECONDS", 0.02)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_events_reach_a_server_that_fails_at_times(server, capsys):
    there = server(500, 503, 200, 429, 408)
    with begun(Webhook(there.url, {"Authorization": "Bearer secret"})) as sink:
        send(sink, [event("Hände\n"), event("b")])
    assert there.numbers() == [1, 2] and [answer for answer, _, _ in there.got] == [500, 503, 200, 429, 408, 200]
    _, body, headers = there.got[2]
    assert body == {"type": "event", "stream": "a stream", "number": 1, "start": 1.0, "end": 2.5, "peak": 1.1,
                    "label": "Hände\n", "score": 0.9}  # fmt: skip
    assert headers["Authorization"] == "Bearer secret" and headers["Content-Type"] == "application/json"
    keys = [headers["Idempotency-Key"] for _, _, headers in there.got]
    assert keys[0] == keys[1] == keys[2] != keys[3] and not capsys.readouterr().err


def test_retry_after_is_waited_for_and_the_connection_stays_open(server):
    there = server((429, "1"), 200, (503, "Wed, 21 Oct 2015 07:28:00 GMT"), (503, "soon"))
    with begun(Webhook(there.url)) as sink:
        send(sink, [event()] * 3)
    first, second, *others = there.times
    assert second - first >= 1 > others[-1] - second
    assert there.numbers() == [1, 2, 3] and len(there.connections) == 1


def test_a_server_that_wants_to_wait_longer_than_patience_is_given_up(server, capsys):
    """Or one that is not there."""
    there = server((429, "3600"))
    for url, reason in ((there.url, "HTTP 429)"), ("http://127.0.0.1:9/", "")):
        started = time.monotonic()
        with begun(Webhook(url, patience=0.1)) as sink:
            send(sink, [event()])
        assert time.monotonic() - started < 3 and not there.numbers()
        told = capsys.readouterr().err
        assert "1 of 1 events did not reach 127.0.0.1:" in told and f"(the last: {reason}" in told


def test_the_proxy_of_the_environment_is_used(server, monkeypatch, capsys):
    there = server()
    monkeypatch.setenv("http_proxy", f"http://user:word@127.0.0.1:{there.server_port}")
    with begun(Webhook("http://example.invalid/events")) as sink:
        send(sink, [event()])
    assert there.numbers() == [1] and there.got[0][2]["proxy-authorization"].startswith("Basic ")
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"http_proxy: cannot be used by sink=webhook: .*socks5"):
        Webhook("http://example.invalid/events")


def test_a_refused_event_is_not_tried_again_and_redirections_are_not_followed(server, capsys):
    there = server(403, 302, 307, 200)
    with begun(Webhook(there.url)) as sink:
        send(sink, [event()] * 4)
    assert [answer for answer, _, _ in there.got] == [403, 302, 307, 200] and there.numbers() == [4]
    assert "3 of 4 events did not reach 127.0.0.1:" in capsys.readouterr().err


def test_a_server_that_comes_back_gets_what_waited(server):
    port = free_port()
    with begun(Webhook(f"http://127.0.0.1:{port}/")) as sink:
        send(sink, [event()] * 3)
        time.sleep(0.15)  # refused meanwhile
        first = server(port=port)
        until(lambda: len(first.numbers()) == 3)
        first.stop()
        send(sink, [event()])
        time.sleep(0.1)
        second = server(port=port)
    assert first.numbers() == [1, 2, 3] and second.numbers() == [4]


def test_a_server_that_hangs_never_holds_up_the_stream(server, capsys):
    there = server(*["hang"] * 100)
    started = time.monotonic()
    with begun(Webhook(there.url, timeout=10.0, queue=5, grace=0.3)) as sink:
        for number in range(1000):
            send(sink, [event(start=number, end=number + 1.0)])
        assert time.monotonic() - started < 0.5
        assert [row["number"] for row in sink.waiting] == [996, 997, 998, 999, 1000]  # the oldest were dropped
    assert time.monotonic() - started < 2.0
    assert "1000 of 1000 events did not reach" in capsys.readouterr().err
    with begun(Webhook(server("hang").url, timeout=0.2)) as sink:  # and is tried again
        send(sink, [event()])
    assert not capsys.readouterr().err


def test_a_certificate_that_nobody_vouches_for_is_refused(server, tmp_path, capsys):
    there, context = server(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path / "both.pem"))
    there.socket = context.wrap_socket(there.socket, server_side=True)
    with begun(Webhook(f"https://localhost:{there.server_port}/", patience=0.1)) as sink:
        send(sink, [event()])
    assert not there.got and "CERTIFICATE_VERIFY_FAILED" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    [
        {"url": "ftp://x/"}, {"url": "file:///etc/passwd"}, {"url": "http://"}, {"url": "http://u:p@x/"},
        {"url": "http://x:y/"}, {"url": "http://x/a b"}, {"url": "http://x/\r\nHost: y"}, {"url": "http://[::1"},
        {"url": "http://x/", "headers": {"A": "b\r\nC: d"}}, {"url": "http://x/", "headers": {"A:b": "c"}},
    ],
)  # fmt: skip
def test_addresses_and_headers_that_cannot_be(given):
    with pytest.raises(ConfigError, match=r"sink\.webhook\.") as caught:
        Webhook(**given)
    assert "u:p" not in str(caught.value)


# A program

TELL = "import json, sys; open(sys.argv[1], 'a').write(json.dumps(sys.argv[2:]) + '\\n')"


def test_a_label_is_one_argument_whatever_it_holds(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    labels = [label for label in HOSTILE if label != "\ud800"] + ["-rf", "--x=1", "* ?", "a;b|c>d", ""]
    run = [sys.executable, "-c", TELL, "told", "{label}", "{start}", "-l={label} {label}", "{stream}"]
    with begun(Command(run, parallel=1, grace=60.0)) as sink:
        send(sink, [event(label) for label in labels])
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    names = [label.replace("\0", "\\x00") for label in labels]
    assert told == [[name, "1.0", f"-l={name} {name}", "a stream"] for name in names]
    assert [path.name for path in tmp_path.iterdir()] == ["told"] and capfd.readouterr() == ("", "")


def test_failing_programs_are_counted(capfd):
    with begun(Command(["sh", "-c", 'echo out; exit "$0"', "{label}"])) as sink:
        send(sink, [event(label) for label in ("0", "3", "3", "7", "\ud800")])
    out, err = capfd.readouterr()
    assert not out and err.count("out\n") == 4  # what it prints does not stand among the rows
    assert "of 5 events 4 failed or were left out (2 x exit code 3" in err and "1 x exit code 7" in err


def test_slow_programs_hold_up_nothing_and_are_killed(tmp_path, capfd):
    started = time.monotonic()
    run = ["sh", "-c", f"echo x >> {tmp_path}/begun; sleep 30 & wait"]
    with begun(Command(run, parallel=2, queue=3, grace=0.5)) as sink:
        for _ in range(50):
            send(sink, [event()])
        assert time.monotonic() - started < 0.3
        until(lambda: len(sink.running) == 2)
        groups = [process.pid for process in sink.running]
    assert time.monotonic() - started < 6
    assert "of 50 events 50 failed or were left out" in capfd.readouterr().err
    until(lambda: not any(map(alive, groups)))  # what the program had started is gone, too
    assert (tmp_path / "begun").read_text() == "x\nx\n"


def alive(group):
    """Whether a process of the group still runs; those that ended and that nobody has asked about do not count."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, number = path.read_text().rpartition(")")[2].split()[:3]
            if int(number) == group and state != "Z":
                return True
    return False


def test_a_program_has_its_time(capfd):
    with begun(Command(["sleep", "20"], timeout=0.1)) as sink:
        send(sink, [event()])
    assert "no end within 0.1 s" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (None, "is not set"), ([], "is not set"), (["{label}"], "can only choose its arguments"),
        (["no-such-program"], "there is no program"), (["echo", "{lable}"], "did you mean 'label'"),
    ],
)  # fmt: skip
def test_programs_that_cannot_be_run(run, message):
    with pytest.raises(ConfigError, match=message):
        Command(run)


# The terminal


def shown(monkeypatch, capsys, columns, lines, colours="truecolor", plain=False):
    """What a terminal gets in a second of a stream, and the last panel."""
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": colours, "COLUMNS": str(columns),
                        "LINES": str(lines)}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("pipeline.sinks.console.REDRAW_SECONDS", 0.0)
    sink = Console()
    sink.ascii = plain
    t = np.arange(1600) / 16000
    with sink:
        labels = ["dog", "cat", "走る", "a very long label of a class", "\x1b[2J"]
        sink.start(StreamInfo("a stream", labels, 16000, 160))
        for number in range(10):
            sink.write(Sound((0.5 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32)))
            scores = np.tile(np.array([[0.1, 0.7, 0.1, 0.05, 0.05]], np.float32), (10, 1))
            sink.write(Steps(10 * number, scores, 0.03))
            sink.write(OpenEvents((event("cat", 0.05, 0.1 * number, 0.7),)))
        sink.write(TimedGap(1.0, 2.5, "unplugged; it is back", "reset"))
        sink.write(StreamWarning(1.0, "silent", "nothing\x07 is heard"))
        panel = sink.panel().plain
    return capsys.readouterr().out, panel


def test_the_panel_shows_what_is_going_on(monkeypatch, capsys):
    out, panel = shown(monkeypatch, capsys, 100, 40)
    lines = panel.splitlines()
    assert "1.0 s" in lines[0] and "30 ms old" in lines[0] and "2.5 s lost" in lines[0] and "1 warnings" in lines[0]
    assert "-6 dBFS" in panel and "> cat" in panel and "dog" in panel and "38;2;" in out
    assert lines[7].startswith("  cat") and lines[7].count("█") > 3 * lines[8].count("█") > 0
    assert "nothing\\x07 is heard (silent)" in out and "\x07" not in out and "\x1b[2J" not in out
    assert all(len(line) < 100 for line in lines)


@pytest.mark.parametrize(("columns", "lines"), [(20, 24), (40, 6), (60, 3), (10, 2), (300, 80)])
def test_the_panel_fits_into_any_terminal(monkeypatch, capsys, columns, lines):
    _, panel = shown(monkeypatch, capsys, columns, lines)
    found = panel.splitlines()
    assert 1 <= len(found) < max(lines, 2) and all(len(line) < columns for line in found)


def test_the_panel_does_without_colours_and_unicode(monkeypatch, capsys):
    out, panel = shown(monkeypatch, capsys, 80, 40, colours="", plain=True)
    assert "38;2;" not in out and "####" in panel
    assert panel.replace("走る", "").isascii()
    row = max(panel.splitlines()[1:6], key=lambda line: sum(map(".:-=+*#%@".find, line.strip() or " ")))
    assert row == panel.splitlines()[3]  # 1000 Hz, in the middle of 60 to 8000


def test_the_strip_shows_tones_where_they_are():
    t = np.arange(16000) / 16000
    places = []
    for hertz in (80, 400, 1500, 7000):
        strip = Spectrogram(16000)
        strip.add(np.sin(2 * np.pi * hertz * t).astype(np.float32))
        assert len(strip.columns) == 10 and strip.level == pytest.approx(0.0, abs=0.1)
        places.append(int(np.argmax(strip.columns[-1])))
        assert strip.columns[-1].max() == pytest.approx(-3, abs=2)
    assert places == sorted(set(places))
    strip = Spectrogram(16000)
    strip.add(np.array([np.nan, np.inf, -np.inf, 1e30] * 2000, np.float32))
    assert np.isfinite(np.array(strip.columns)).all() and strip.draw(20, colours=True) and strip.draw(20, colours=False)
    strip = Spectrogram(8000, columns=20)
    strip.add(np.zeros(8000 * 600, np.float32))
    assert len(strip.columns) == 20 and strip.level == FLOOR_DBFS == decibels(0.0) and decibels(1.0) == 0


def test_nothing_is_said_of_a_stream_that_never_began(capsys):
    with Console():
        pass
    assert capsys.readouterr().out == ""


def test_an_interrupt_in_compiled_code_is_told_as_one():
    """numba turns what a signal raises into a SystemError."""
    with pytest.raises(KeyboardInterrupt), Interrupts():
        signal.raise_signal(signal.SIGINT)
        raise SystemError("returned a result with an exception set")
    with pytest.raises(SystemError), Interrupts():
        raise SystemError("a fault of its own")


def test_sinks_spare_what_is_read_and_each_other(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "talk.wav").write_bytes(b"a recording")
    (tmp_path / "link").symlink_to(tmp_path / "talk.wav")
    (tmp_path / "t.posteriors.csv").write_bytes(b"a table")
    read = [tmp_path / "other", tmp_path / "talk.wav", tmp_path / "t.posteriors.csv"]

    def check(read, **sinks):
        Fanout(sinks).check_overwrites(read)

    for name in ("talk.wav", "link", "x/../talk.wav"):
        with pytest.raises(ConfigError, match=r"sink\.jsonl\.path: .* is a file that is read"):
            check(read, jsonl=JSONLines(str(tmp_path / name)))
    with pytest.raises(ConfigError, match=r"sink\.csv\.path: .* is a file that is read"):
        check(read, csv=CSV(str(tmp_path / "t.csv"), posteriors=True))
    for name in ("new.txt", "talk.wav"):
        with pytest.raises(ConfigError, match=r"sink\.labels\.path: .* is written by jsonl, too"):
            check([], jsonl=JSONLines(str(tmp_path / name)), labels=Labels(str(tmp_path / name)))
    check([tmp_path / "c"], jsonl=JSONLines(str(tmp_path / "a")), labels=Labels(str(tmp_path / "b")))
    assert (tmp_path / "talk.wav").read_bytes() == b"a recording"


def test_a_disk_that_fails_is_told(tmp_path, monkeypatch):
    def failing(file):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pipeline.core.journal.os.fsync", failing)
    journal = Journal(str(tmp_path / "out"), 0.001)
    time.sleep(0.01)
    with pytest.raises(OSError, match="Input/output error"):
        journal.write("a row\n")
