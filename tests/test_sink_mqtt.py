"""sink=mqtt with a real broker, which is restarted, refuses, and is not there."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import soundfile
from conftest import ROOT, certificate, configured, free_port, noise, ran, refused, small_model, until
from played import NOON, event

from pipeline.core.build import build
from pipeline.core.errors import ConfigError
from pipeline.core.text import clean
from pipeline.sinks.items import Clock, OpenEvents, StreamInfo
from pipeline.sinks.mqtt import MQTT, PASSWORD, USER
from pipeline.sinks.sink import Sink

paho = pytest.importorskip("paho.mqtt.client", reason="no paho-mqtt: pip install 'paho-mqtt>=2.1'")
PROGRAM = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
needs_broker = pytest.mark.skipif(PROGRAM is None, reason="no broker: apt-get install mosquitto")
LABELS = ["background", "dog", "Hände", "a/b+#", '{{ 1 }} "x"\n']


class Broker:
    """A mosquitto that keeps what it has between its lives, and somebody who listens to all."""

    def __init__(self, folder, *settings):
        self.port, self.folder, self.process, self.listener, self.got = free_port(), folder, None, None, []
        lines = [
            f"listener {self.port} 127.0.0.1",
            f"persistence_location {folder}/",
            "persistence true",
            "log_dest none",
        ]
        lines += ["user root"] if os.getuid() == 0 else []
        (folder / "mosquitto.conf").write_text("\n".join([*lines, *(settings or ["allow_anonymous true"])]) + "\n")

    def start(self):
        self.process = subprocess.Popen([PROGRAM, "-c", str(self.folder / "mosquitto.conf")], stderr=subprocess.DEVNULL)
        until(self.answers)

    def answers(self):
        assert self.process.poll() is None, "mosquitto has ended"
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait()

    def listen(self, context=None):
        """Somebody whom the broker remembers, so that nothing passes by while one of them is away."""
        self.listener = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="listener", clean_session=False)
        self.listener.reconnect_delay_set(1, 1)
        self.listener.on_connect = lambda client, *others: client.subscribe("#", qos=1)
        self.listener.on_message = lambda client, data, message: self.got.append(
            (message.topic, message.payload.decode(), message.retain)
        )
        self.listener.on_subscribe = lambda *others: self.got.append("subscribed")
        if context:
            self.listener.tls_set_context(context)
        self.listener.connect("127.0.0.1" if context is None else "localhost", self.port)
        self.listener.loop_start()
        until(lambda: "subscribed" in self.got)
        self.got.remove("subscribed")

    def messages(self, topic):
        return [json.loads(one[1]) for one in self.got if one[0] == topic]

    def last(self, topic):
        found = [one[1] for one in self.got if one[0] == topic]
        return found[-1] if found else None


@contextmanager
def broker_of(folder, *settings):
    broker = Broker(folder, *settings)
    broker.start()
    try:
        yield broker
    finally:
        if broker.listener:
            broker.listener.disconnect()
            broker.listener.loop_stop()
        broker.stop(signal.SIGKILL)


@pytest.fixture
def broker(tmp_path):
    with broker_of(tmp_path) as broker:
        broker.listen()
        yield broker


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr("pipeline.sinks.mqtt.LONGEST_WAIT_SECONDS", 1)


def begun(port, **settings):
    sink = MQTT("127.0.0.1", port, **settings)
    sink.setup(LABELS, ["background"])
    sink.start(StreamInfo("a stream", LABELS, 8000, 80))
    return sink


# What a broker gets


@needs_broker
def test_events_and_states_as_json(broker):
    with begun(broker.port, topic="home/kitchen") as sink:
        until(lambda: broker.last("home/kitchen/status") == "online")
        assert broker.last("home/kitchen/state/dog") == '{"state": "OFF", "label": "dog"}'
        sink.write(Clock(10.0, NOON + 10))
        sink.write(event("dog", 9.0, 9.5, 0.75))
        for _ in range(3):
            sink.write(OpenEvents((event("dog", 9.75, 10.0),)))
        until(lambda: "ON" in broker.last("home/kitchen/state/dog"))
        assert broker.messages("home/kitchen/state/dog")[1:] == [
            {"state": "ON", "label": "dog", "start": 9.75, "time": "2026-11-30T12:00:10.000Z"}
        ]
        sink.write(OpenEvents(()))
        until(lambda: "OFF" in broker.last("home/kitchen/state/dog"))
    until(lambda: broker.last("home/kitchen/status") == "offline")
    (found,) = broker.messages("home/kitchen/event")
    assert found == {
        "event_type": "dog", "time": "2026-11-30T12:00:09.250Z", "type": "event", "stream": "a stream", "number": 1,
        "start": 9.0, "end": 9.5, "peak": 9.0, "label": "dog", "score": 0.75,
    }  # fmt: skip


@needs_broker
def test_home_assistant_finds_it(broker):
    """As its documents ask for: https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload."""
    with begun(broker.port, topic="home/kitchen") as sink:
        until(lambda: broker.last("home/kitchen/status"))
        sink.write(event(LABELS[-1], 1, 2))
    until(lambda: broker.messages("home/kitchen/event") and broker.last("home/kitchen/status") == "offline")
    ((topic, text),) = [(one[0], one[1]) for one in broker.got if one[0].startswith("homeassistant/")]
    assert re.fullmatch(r"homeassistant/device/home_kitchen-[0-9a-f]{6}/config", topic)
    device = json.loads(text)
    assert device["device"]["identifiers"] == [topic.split("/")[2]] and device["origin"]["name"] == "Rivulet"
    assert device["availability_topic"] == "home/kitchen/status"
    parts = device["components"]
    assert len(parts) == 5 and all(key == part["unique_id"] for key, part in parts.items())
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", key) for key in parts)
    (events,) = [part for part in parts.values() if part["platform"] == "event"]
    assert events["state_topic"] == "home/kitchen/event" and events["event_types"] == [clean(one) for one in LABELS[1:]]
    assert broker.messages("home/kitchen/event")[0]["event_type"] == clean(LABELS[-1]) in events["event_types"]
    switches = [part for part in parts.values() if part["platform"] == "binary_sensor"]
    assert [part["name"] for part in switches] == [clean(label) for label in LABELS[1:]]
    for part in switches:
        assert json.loads(broker.last(part["state_topic"]))["label"] == part["name"]
        assert part["value_template"] == "{{ value_json.state }}" and part["state_topic"].isascii()
    retained = {one[0] for one in broker.got if one[0] != "home/kitchen/event"}
    broker.got.clear()
    broker.listener.subscribe("#", qos=1)  # what a newcomer gets
    until(lambda: len(broker.got) >= len(retained))
    assert {one[0] for one in broker.got if one != "subscribed"} == retained


@needs_broker
def test_home_assistant_finds_limits(broker, tmp_path):
    small_model("task=values", "task.units={snr: dB}", "decoder=limits", labels=["snr (dB)"]).save(tmp_path / "m")
    soundfile.write(tmp_path / "a.wav", noise(8000), 16000)
    ran("infer.py", f"checkpoint={tmp_path / 'm'}", f"source.path={tmp_path / 'a.wav'}", "decoder.above={snr: -1000}",
        "sink=mqtt", "sink.mqtt.host=127.0.0.1", f"sink.mqtt.port={broker.port}")  # fmt: skip
    until(lambda: broker.last("rivulet/status") == "offline")
    (text,) = [one[1] for one in broker.got if one[0].startswith("homeassistant/")]
    events, switch = json.loads(text)["components"].values()
    assert events["event_types"] == ["snr above -1000 dB"] == [switch["name"]]
    assert [one["event_type"] for one in broker.messages("rivulet/event")] == events["event_types"]
    assert {one["state"] for one in broker.messages(switch["state_topic"])} == {"ON", "OFF"}


@needs_broker
def test_without_discovery(broker):
    with begun(broker.port, discovery=None):
        until(lambda: broker.last("rivulet/status"))
    assert not [one for one in broker.got if one[0].startswith("homeassistant")]


# A broker that goes and comes


@needs_broker
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_event_is_lost_over_a_restart(tmp_path, capsys, how):
    with broker_of(tmp_path) as broker:
        broker.listen()
        with begun(broker.port, queue=500, grace=20.0) as sink:
            for number in range(100):
                sink.write(event("dog", number, number + 0.5))
            until(lambda: len(broker.messages("rivulet/event")) == 100)
            broker.process.send_signal(signal.SIGUSR1)  # it writes down who listens
            until(lambda: (tmp_path / "mosquitto.db").exists())
            time.sleep(0.1)
            broker.stop(how)
            started = time.monotonic()
            for number in range(100, 300):
                sink.write(event("dog", number, number + 0.5))
            sink.write(OpenEvents((event("dog", 300, 301),)))
            assert time.monotonic() - started < 0.5
            until(lambda: "up to 500 events wait" in capsys.readouterr().err)
            broker.start()
            for number in range(300, 400):
                sink.write(event("dog", number, number + 0.5))
                time.sleep(0.002)
            until(lambda: len(broker.messages("rivulet/event")) >= 400, 20)
            until(lambda: "ON" in broker.last("rivulet/state/dog"))  # told anew
        numbers = [row["number"] for row in broker.messages("rivulet/event")]
        assert sorted(set(numbers)) == list(range(1, 401)) and len(numbers) <= 402
        assert list(dict.fromkeys(numbers)) == list(range(1, 401))  # in order
    err = capsys.readouterr().err
    assert f"sink=mqtt: connected to 127.0.0.1:{broker.port}" in err and "did not reach" not in err


@needs_broker
def test_what_the_queue_cannot_hold_is_counted(broker, capsys):
    with begun(broker.port, queue=10, grace=20.0) as sink:
        until(lambda: broker.last("rivulet/status") == "online")
        broker.stop()
        for number in range(100):
            sink.write(event("dog", number, number + 0.5))
            time.sleep(0.001)
        broker.start()
        until(lambda: len(broker.messages("rivulet/event")) >= 11, 20)
    numbers = {row["number"] for row in broker.messages("rivulet/event")}
    assert set(range(91, 101)) <= numbers and len(numbers) == 11  # those that waited, and the one on its way
    told = capsys.readouterr().err
    assert f"89 of 100 events did not reach 127.0.0.1:{broker.port} (the last: the queue was full)" in told


def test_without_a_broker_the_stream_goes_on_and_ends(capsys):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        started = time.monotonic()
        with begun(port, grace=0.3) as sink:
            for number in range(5):
                sink.write(event("dog", number, number + 0.5))
            sink.write(OpenEvents((event("dog", 5, 6),)))
            assert time.monotonic() - started < 0.5
            until(lambda: sink.warned)
            started = time.monotonic()
        assert time.monotonic() - started < 2.5
    err = capsys.readouterr().err
    assert err.count("warning") == 2
    assert f"sink=mqtt: 127.0.0.1:{port}: [Errno 111] Connection refused; trying again" in err
    assert f"5 of 5 events did not reach 127.0.0.1:{port} (the last: [Errno 111] Connection refused)" in err


PROGRAM_TO_KILL = """
import sys, time; sys.path[:0] = [{root!r}]
from pipeline.sinks.items import StreamInfo
from pipeline.sinks.mqtt import MQTT
sink = MQTT("127.0.0.1", {port})
sink.setup(["dog"], [])
sink.start(StreamInfo("a stream", ["dog"], 8000, 80))
time.sleep(60)
"""


@needs_broker
def test_the_last_will_of_a_program_that_is_killed(broker):
    code = PROGRAM_TO_KILL.format(root=str(ROOT), port=broker.port)
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        until(lambda: broker.last("rivulet/status") == "online", 60)
        process.kill()
    until(lambda: broker.last("rivulet/status") == "offline")


# Who may


@needs_broker
def test_user_and_password_come_from_the_environment(tmp_path, monkeypatch, capsys):
    words = shutil.which("mosquitto_passwd")
    if words is None:
        pytest.skip("no mosquitto_passwd")
    subprocess.run([words, "-b", "-c", str(tmp_path / "users"), "listener", "sesame"], check=True, capture_output=True)
    with broker_of(tmp_path, "allow_anonymous false", f"password_file {tmp_path}/users") as broker:
        for name, value, works in (("listener", "wrong", False), ("", "", False), ("listener", "sesame", True)):
            monkeypatch.setenv(USER, name)
            monkeypatch.setenv(PASSWORD, value)
            with begun(broker.port, grace=1.5) as sink:
                sink.write(event("dog", 1, 2))
            err = capsys.readouterr().err
            assert ("1 of 1 events did not reach" in err) != works
            if not works:
                assert f"refused: Not authorized; user and password are taken from {USER} and {PASSWORD}" in err
                assert "wrong" not in err


@needs_broker
@pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning")  # paho leaves them
def test_encrypted(tmp_path, capsys):
    ours, other = (certificate(tmp_path / f"{name}.pem") for name in ("broker", "other"))
    keys = [f"{kind} {ours}" for kind in ("cafile", "certfile", "keyfile")]
    with broker_of(tmp_path, "allow_anonymous true", *keys) as broker:
        for host, ca, works in (("localhost", ours, True), ("localhost", other, False), ("127.0.0.1", ours, False)):
            sink = MQTT(host, broker.port, ca=str(ca), grace=1.5)
            sink.setup(LABELS, [])
            sink.start(StreamInfo("a stream", LABELS, 8000, 80))
            with sink:
                sink.write(event("dog", 1, 2))
            err = capsys.readouterr().err
            assert ("did not reach" not in err) == works, err
            if not works:
                assert "CERTIFICATE_VERIFY_FAILED" in err


# Settings


@pytest.mark.parametrize(("settings", "message"), [
    ({"host": "mqtt://x"}, "sink.mqtt.host: got 'mqtt://x'"), ({"host": "a..b"}, "sink.mqtt.host: got 'a..b'"),
    ({"host": "x:1883"}, "sink.mqtt.host: got 'x:1883'; expected the broker's name or address, without a port"),
    ({"host": "x", "topic": "a/#"}, "sink.mqtt.topic: got 'a/#'; expected words with / between them"),
    ({"host": "x", "topic": ""}, "sink.mqtt.topic: got ''"),
    ({"host": "x", "topic": "/a"}, "sink.mqtt.topic: got '/a'"),
    ({"host": "x", "discovery": "a b+"}, "sink.mqtt.discovery: got 'a b\\+'"),
    ({"host": "x", "ca": "/no/such.pem"}, "sink.mqtt.ca: /no/such.pem cannot be read as certificates"),
    ({"host": "x", "ca": __file__}, "cannot be read as certificates"),
])  # fmt: skip
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ConfigError, match=message):
        MQTT(**settings)


def test_ports_addresses_and_a_missing_package(monkeypatch):
    given = (("::1", {}, 1883), ("x", {"tls": True}, 8883), ("x", {"port": 7}, 7))
    assert all(MQTT(host, **more).port == port for host, more, port in given)
    settings = configured("infer", "sink=mqtt", "sink.mqtt.host=broker.local")["sink"]["mqtt"]
    assert build(settings, Sink, at="sink.mqtt").client is not None
    assert not [key for key in settings if key in ("user", "password")]
    given = "checkpoint=none", "sink=mqtt", "sink.mqtt.host=x", "sink.mqtt.password=secret"
    refused("sink.mqtt.password", "infer.py", *given)
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(ConfigError, match=r"sink=mqtt: needs paho-mqtt: pip install 'paho-mqtt>=2.1'"):
        MQTT("x")
