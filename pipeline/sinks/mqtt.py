"""Events and states to an MQTT broker, where Home Assistant finds them by itself."""

import importlib
import json
import os
import ssl
import sys
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

import pipeline.sinks.items as items
from pipeline.core.errors import ConfigError
from pipeline.core.text import clean, slug
from pipeline.sinks.async_sink import SLACK_SECONDS, AsyncSink

USER, PASSWORD = "RIVULET_MQTT_USER", "RIVULET_MQTT_PASSWORD"  # environment variables
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1, 30  # before the next attempt to connect: twice as long each time
KEEPALIVE_SECONDS = 30  # after which a broker knows that we are gone without a word
PORT, TLS_PORT = 1883, 8883


@dataclass(eq=False)
class MQTT(AsyncSink):
    """What goes below ``topic``, as JSON: ``event`` (each event that has ended), ``state/LABEL`` (ON while an event of
    the label is open, else OFF; retained) and ``status`` (online or offline; retained, also the last will).

    An event counts as delivered once the broker has confirmed it (QoS 1), so it may come twice. While there is no
    broker, events wait in the queue; each new connection begins with the states of now. User and password come from
    the environment: RIVULET_MQTT_USER, RIVULET_MQTT_PASSWORD.

    ``port`` None: 1883, with ``tls`` 8883. ``ca``: certificates (PEM) that are trusted instead of the system's.
    ``topic``: another for each of several programs. ``discovery``: prefix of Home Assistant's topics (None: none).
    ConfigError without paho-mqtt.
    """

    host: str
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    tls: bool = False
    ca: str | None = None
    topic: str = "rivulet"
    discovery: str | None = "homeassistant"

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            self.paho: Any = importlib.import_module("paho.mqtt.client")
            version = self.paho.CallbackAPIVersion.VERSION2
        except (ImportError, AttributeError):
            raise ConfigError("sink=mqtt: needs paho-mqtt: pip install 'paho-mqtt>=2.1'") from None
        if not is_host(self.host):
            raise ConfigError(
                f"sink.mqtt.host: got {self.host!r}; expected the broker's name or address, without a port"
            )
        for key, value in {"topic": self.topic, "discovery": self.discovery}.items():
            if value is not None and (not value.isprintable() or set("+#$") & set(value) or not all(value.split("/"))):
                raise ConfigError(f"sink.mqtt.{key}: got {value!r}; expected words with / between them, without + # $")
        encrypted = self.tls or self.ca is not None
        self.port = self.port or (TLS_PORT if encrypted else PORT)
        self.client = self.paho.Client(version, client_id=f"rivulet-{uuid.uuid4().hex[:12]}")
        if encrypted:
            self.client.tls_set_context(trusting(self.ca))
        if user := os.environ.get(USER):
            self.client.username_pw_set(user, os.environ.get(PASSWORD))
        self.client.will_set(f"{self.topic}/status", "offline", qos=1, retain=True)
        self.client.reconnect_delay_set(FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS)
        self.client.on_connect, self.client.on_connect_fail = self.connected, self.not_connected
        self.client.on_disconnect, self.client.on_publish = self.disconnected, self.confirmed
        self.clock = items.Clock()
        self.labels: list[str] = []
        self.states: dict[str, items.TimedEvent | None] = {}  # the open event of each label, of any stream
        self.open: dict[str, tuple[items.TimedEvent, ...]] = {}  # by stream
        self.confirmations: set[int] = set()
        self.publishing = threading.Lock()
        self.trouble, self.warned, self.gone = "there was no connection", False, threading.Event()

    def setup(self, labels: list[str], background: list[str]) -> None:
        """Which labels make events."""
        self.labels = [label for label in labels if label not in background]
        self.states = dict.fromkeys(self.labels)

    def start(self, stream: items.StreamInfo) -> None:
        """Begin to connect; that may take as long as it will."""
        super().start(stream)
        self.client.connect_async(self.host, self.port, KEEPALIVE_SECONDS)
        self.client.loop_start()

    def write(self, item: items.Item, **more: Any) -> None:
        """Queue an event; publish the states that change."""
        match item:
            case items.Clock():
                self.clock = item
            case items.OpenEvents():
                self.open[self.stream.name if self.stream else ""] = item.events
                now = dict.fromkeys(self.labels) | {
                    one.label: one for events in self.open.values() for one in events if one.label in self.labels
                }  # a phrase of no list is none
                changed = [label for label in now if (now[label] is None) != (self.states.get(label) is None)]
                self.states |= now
                if self.client.is_connected():
                    self.publish_states(changed)
            case items.TimedEvent():
                super().write(item, time=self.clock.utc(item.start))

    def leave(self) -> None:
        """Its events are not open any more."""
        self.write(items.OpenEvents(()))
        self.open.pop(self.stream.name if self.stream else "", None)

    def publish_states(self, labels: list[str]) -> None:
        """Publish the states of these labels. No confirmation is needed: a new connection begins with all states."""
        with self.publishing:  # so that none is overtaken by one before
            for label in labels:
                event = self.states.get(label)
                state: items.Row = {"state": "OFF" if event is None else "ON", "label": clean(label)}
                if event is not None:
                    state |= {"start": event.start, "time": self.clock.utc(event.start)}
                self.client.publish(self.state_topic(label), json.dumps(state), retain=True)

    def state_topic(self, label: str) -> str:
        """Where the state of a label stands."""
        return f"{self.topic}/state/{slug(label, only_ascii=True)}"

    def deliver(self, row: items.Row) -> str:
        """Publish an event, and wait until the broker has it."""
        label = clean(row["label"])
        event = {"event_type": label} | row | {"label": label, "stream": clean(row["stream"])}
        with self.changed:
            self.confirmations.clear()
        # without a broker, paho keeps the message until there is one
        number = self.client.publish(f"{self.topic}/event", json.dumps(event), qos=1).mid
        with self.changed:
            while number not in self.confirmations:
                if (left := self.until - time.monotonic()) <= 0:
                    return self.trouble
                self.changed.wait(min(left, 1.0))
        return ""

    def confirmed(self, client: Any, data: Any, number: int, *others: Any) -> None:
        """The broker has a message, or it is on its way where no confirmation is asked for."""
        with self.changed:
            self.confirmations.add(number)
            self.changed.notify_all()

    def connected(self, client: Any, data: Any, flags: Any, code: Any, properties: Any) -> None:
        """There is a broker: tell it what we are, and how things stand."""
        if code.is_failure:
            self.warn_once(f"refused: {code}; user and password are taken from {USER} and {PASSWORD}")
            return
        self.trouble = "the broker has not confirmed it"
        if self.warned:
            self.warned = False
            print(f"sink=mqtt: connected to {self.host}:{self.port}", file=sys.stderr)
        if self.discovery:
            topic = f"{self.discovery}/device/{slug(self.topic, only_ascii=True)}/config"
            client.publish(topic, json.dumps(self.describe()), retain=True)
        self.publish_states(self.labels)
        client.publish(f"{self.topic}/status", "online", retain=True)

    def describe(self) -> items.Row:
        """The device for Home Assistant: one entity of events, and for each label one that is on or off."""
        device = slug(self.topic, only_ascii=True)
        kinds: items.Row = {
            f"{device}_event": {
                "platform": "event", "name": "Event", "state_topic": f"{self.topic}/event",
                "event_types": [clean(label) for label in self.labels],
            }
        }  # fmt: skip
        for label in self.labels:
            topic = self.state_topic(label)
            kinds[f"{device}_{slug(label, only_ascii=True)}"] = {
                "platform": "binary_sensor", "name": clean(label), "state_topic": topic,
                "value_template": "{{ value_json.state }}", "json_attributes_topic": topic,
            }  # fmt: skip
        return {
            "device": {"identifiers": [device], "name": clean(self.topic.replace("/", " ")), "manufacturer": "Rivulet"},
            "origin": {"name": "Rivulet"},
            "availability_topic": f"{self.topic}/status",
            "qos": 1,
            "components": {key: {"unique_id": key} | kind for key, kind in kinds.items()},
        }

    def not_connected(self, client: Any, data: Any) -> None:
        """There is no broker. Called while the error is handled."""
        self.warn_once(str(sys.exc_info()[1]))

    def disconnected(self, client: Any, data: Any, flags: Any, code: Any, properties: Any) -> None:
        """The connection is over."""
        if self.ended:
            self.gone.set()
        elif code.is_failure:
            self.warn_once(f"the connection was lost ({code})")

    def warn_once(self, problem: str) -> None:
        """Warn once of each time without a broker."""
        self.trouble = problem
        if not self.warned and not self.ended:
            self.warned = True
            text = f"sink=mqtt: {self.host}:{self.port}: {problem}; trying again, up to {self.queue} events wait"
            print(f"warning: {clean(text)}", file=sys.stderr)

    def close(self) -> None:
        """Give what is left the grace, and say goodbye."""
        if self.ended or self.stream is None:
            return
        super().close()
        if self.client.is_connected():
            self.client.publish(f"{self.topic}/status", "offline", retain=True)
            self.client.disconnect()
            self.gone.wait(SLACK_SECONDS)
        else:
            self.client.disconnect()

    def summary(self, missing: int, reason: str) -> str:
        """What was not delivered, and where to."""
        return f"sink=mqtt: {missing} of {self.count} events did not reach {self.host}:{self.port} (the last: {reason})"


def is_host(host: str) -> bool:
    """Whether a text can be the name or the address of a server."""
    with suppress(UnicodeError):
        return bool(host.encode("idna")) and host.isprintable() and not set(" /@") & set(host) and host.count(":") != 1
    return False


def trusting(ca: str | None) -> ssl.SSLContext:
    """How certificates are checked. ConfigError if those to be trusted cannot be read."""
    try:
        return ssl.create_default_context(cafile=None if ca is None else os.path.expanduser(ca))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"sink.mqtt.ca: {ca} cannot be read as certificates (PEM): {error}") from None
