"""All clients in one thread, with one Scheduler: what they send is computed in turns, told to the sinks, and sealed.

The network's thread puts orders into a queue and never waits; what is to be sent comes back once a turn. A client that
has gone keeps its seat for a minute. Whenever it comes back, the sinks are told no event twice (``once.py``).
"""

import copy
import json
import queue
import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

import pipeline.sinks.items as items
from pipeline.core.errors import ConfigError, SnapshotError
from pipeline.core.text import clean
from pipeline.decoders.decoder import Event
from pipeline.model.stream_model import StreamModel
from pipeline.serving import messages as said
from pipeline.serving.figures import Figures
from pipeline.serving.messages import Hello, Refused
from pipeline.serving.once import Once
from pipeline.serving.orders import Enter, Gone, Leave, Lost, Order, Parts, Stop
from pipeline.serving.seal import Sealed, SealError, Seals
from pipeline.serving.seat import Seat
from pipeline.sinks.listen import tell_answer
from pipeline.sinks.sink import Sink
from pipeline.streaming.scheduler import Answer, Scheduler
from pipeline.streaming.stream import Stream

GAP = ""  # no label: how a gap is known
TILE = 64  # rows of a batch at most: part of what makes bits
TURN_SECONDS = 0.01  # from the beginning of a turn to the next, at least: small batches are dear
CREDIT_SECONDS = 2.0
SEAL_SECONDS, SLOW_SEAL_SECONDS = 2.0, 10.0  # between two seals of a stream, on average; slow: large ones, or load
LARGE_SEAL, BUSY = 64 << 10, 0.5  # characters; load
KEPT_SECONDS, MAX_KEPT = 60.0, 256  # of seats whose client has gone
LOOK_SECONDS = 1.0  # between two looks at those, and at the load
DRIFT = 0.001  # share by which a client's clock may be slow

Client: TypeAlias = Any  # whatever the network knows it by


class News(NamedTuple):
    """For a client (None: all who watch events): a text; up to which tick it is answered; from which tick on it is let
    in; how its connection ends.
    """

    client: Client
    text: str = ""
    answered: int | None = None
    welcome: int | None = None
    end: Refused | None = None


class Hall:
    """``put`` takes orders, from any thread; ``post`` is called with news, in the hall's own.

    Attributes:
        facts: of the model, for clients. ``credit``: ticks that a client may be ahead of its answers.
        figures: what it has done.
        error: what has ended the thread.
    """

    def __init__(
        self,
        model: StreamModel,
        block: float,
        settings: Mapping[str, Any],
        sink: Sink,
        seals: Seals,
        once: Once,
        post: Callable[[Sequence[News]], None],
    ) -> None:
        """``block``: seconds computed at a time. ``settings`` of the decoder. ``sink``: each client gets one beside.
        ``once``: what all of them know. ConfigError for a model of series, which no browser sends.
        """
        if model.spec.series:
            raise ConfigError("source=browser gives sound and pictures, but the model takes a series; set source=stdin")
        steps = max(1, round(block * model.rate / model.hop))
        self.model, self.steps, self.sink, self.seals, self.once, self.post = model, steps, sink, seals, once, post
        self.scheduler, self.decoder = Scheduler(model, steps, TILE), model.decoder(**settings)
        self.credit = max(round(CREDIT_SECONDS * model.rate), 2 * self.scheduler.size)
        self.facts = said.facts_of(model, self.scheduler.size, self.decoder) | {"credit": self.credit}
        self.inbox: queue.SimpleQueue[tuple[Client, Any]] = queue.SimpleQueue()
        self.threads = [threading.Thread(target=self.run, name="hall", daemon=True)]
        self.first = self.inbox  # where orders go
        if model.spec.picture:
            from pipeline.serving.darkroom import Darkroom

            darkroom = Darkroom(model.spec, self.inbox)
            self.first = darkroom.inbox
            self.threads.append(threading.Thread(target=darkroom.run, name="darkroom", daemon=True))
        empty = len(Stream(model, steps).snapshot())
        waiting = self.credit // model.spec.grain * sum(track.grain_bytes for track in model.spec.tracks)
        self.seal_size = 2 * (empty + waiting) + (64 << 10)  # characters, at most
        self.seats: dict[str, Seat] = {}
        self.by_client: dict[Client, Seat] = {}
        self.by_stream: dict[Stream, Seat] = {}
        self.orders = deque[tuple[Client, Any]]()  # that have come
        self.untold: tuple[list[Answer], list[News]] = [], []  # of the last batch, and seals made after it
        self.news: list[News] = []
        self.figures = Figures()
        self.error: BaseException | None = None

    def start(self) -> None:
        """Begin to compute."""
        for thread in self.threads:
            thread.start()

    def put(self, client: Client, order: Order | Stop) -> None:
        """An order of a client. Any thread."""
        self.first.put((client, order))

    def stop(self) -> None:
        """Send all clients away, and wait for the end."""
        self.put(None, Stop())
        for thread in self.threads:
            thread.join()

    def run(self) -> None:
        """Turns until Stop, or an error of all sinks."""
        more: bool | None = False
        try:
            while more is not None:
                began = time.monotonic()
                more = self.turn(more)
                if more is not None and not self.scheduler.wait(0):  # a full batch leaves some
                    time.sleep(max(0.0, began + TURN_SECONDS - time.monotonic()))
        except BaseException as error:  # raised again by who has started us
            self.error = error
            failed = Refused(said.FAULT, "the server has failed")
            self.news += [News(client, end=failed) for client in [*self.by_client, None]]
        self.post(self.news)

    def turn(self, more: bool) -> bool | None:
        """Obey what has come, answer what waits (``more``: something may). Whether something may still; None: stop."""
        if not (more or self.orders):
            with suppress(queue.Empty):
                self.orders.append(self.inbox.get(timeout=LOOK_SECONDS))
        began, stop = time.monotonic(), False
        for client, order in self.receive():
            stop = stop or isinstance(order, Stop)
            if not isinstance(order, Parts):
                self.tell_untold()
            self.obey(client, order)
        self.orders.clear()
        answers = self.scheduler.turn(self.meanwhile)
        self.tell_untold()
        now = time.monotonic()
        seats = (self.by_stream[answer.stream] for answer in answers)
        seals = [self.news_of_seal(seat) for seat in seats if seat.client is not None and now >= seat.due]
        self.untold = answers, seals
        if not self.scheduler.wait(0):
            self.tell_untold()
        self.figures.busy += now - began
        if now - self.figures.summed > LOOK_SECONDS:
            self.look(now)
        if stop:
            self.send_all_away()
            return None
        self.post_news()
        return bool(answers)

    def receive(self) -> deque[tuple[Client, Any]]:
        """The orders that have come and are not obeyed."""
        self.orders += [self.inbox.get_nowait() for _ in range(self.inbox.qsize())]
        return self.orders

    def meanwhile(self) -> None:
        """While a batch is computed: tell what the one before has answered, and take input, up to any other order."""
        self.tell_untold()
        self.post_news()
        orders = self.receive()
        while orders and isinstance(orders[0][1], Parts):
            self.obey(*orders.popleft())

    def tell_untold(self) -> None:
        """Tell the last answers, and send the seals that were made after them."""
        (answers, seals), self.untold = self.untold, ([], [])
        self.tell(answers)
        self.news += seals

    def post_news(self) -> None:
        """Give the news to the network."""
        if self.news:
            news, self.news = self.news, []
            self.post(news)

    def obey(self, client: Client, order: Any) -> None:
        """One order. Those of a client without a seat, which is taken, are of no use."""
        if isinstance(order, Enter):
            self.enter(client, order.hello)
        elif seat := self.by_client.get(client):
            match order:
                case Gone():
                    del self.by_client[client]
                    seat.client, seat.left = None, time.monotonic()
                case Refused():
                    self.news.append(News(client, end=order))
                case Lost():
                    self.lose(seat, order)
                case Leave():
                    self.finish(seat)
                    self.news.append(News(client, end=Refused(said.ENDED, "the stream is over")))
                case _:
                    self.feed(seat, order.x, order.shown)

    def enter(self, client: Client, hello: Hello) -> None:
        """Seat a client: where it was, or anew."""
        why, sealed = "", None
        if hello.resume is not None:
            try:
                sealed = self.seals.open(hello.resume, time.time())
                stream = Stream.restore(self.model, sealed.snapshot, copy.deepcopy(self.decoder))
                if stream.size != self.scheduler.size:
                    raise SnapshotError("the server computes blocks of another length now")
            except (SealError, SnapshotError) as error:
                why, sealed = str(error), None
        resumed = sealed is not None
        if sealed is None:
            stream = Stream(self.model, self.steps, copy.deepcopy(self.decoder))
            stream.gap(hello.tick)
            sealed = Sealed(secrets.token_hex(8), hello.tick, time.time() - hello.tick / self.model.rate, b"")
        if seat := self.seats.get(sealed.session):
            if seat.client is not None:
                self.news.append(News(seat.client, end=Refused(said.TAKEN_OVER, "the stream goes on elsewhere")))
            self.drop(seat)
            seat.stream = stream
        else:
            told = max(stream.steps, hello.answered)
            name = f"{clean(hello.name) or 'client'} {sealed.session}"
            sink = self.sink.beside(items.StreamInfo(name, self.model.labels, self.model.rate, self.model.hop))
            seat = Seat(sealed.session, name, stream, sink, told, sealed.tick, sealed.began)
        seat.client, seat.posteriors = client, hello.posteriors
        self.seats[seat.session] = self.by_client[client] = self.by_stream[stream] = seat
        self.scheduler.join(stream)
        self.figures.counts["resumed"] += resumed
        facts = {"protocol": said.PROTOCOL, "session": seat.session, "resumed": resumed, "why": why}
        facts |= {"from": sealed.tick, "first": stream.steps, "seal": self.seal(seat)}
        self.news.append(News(client, said.text_of("welcome", **facts, **self.facts), welcome=sealed.tick))

    def feed(self, seat: Seat, x: Any, shown: Any) -> None:
        """Input of a client; its sink hears what it has not heard yet."""
        ticks, tick, rate = self.model.spec.ticks(x), seat.stream.received, self.model.rate
        seat.began = min(time.time() - (tick + ticks) / rate, seat.began + DRIFT * ticks / rate)
        self.figures.counts["ticks"] += ticks
        if tick + ticks > seat.heard:
            seconds = (tick + ticks) / rate
            seat.sink.write(items.Clock(seconds, seat.began + seconds))
            if self.model.spec.sound:
                seat.sink.write(items.Sound(x[0][max(0, seat.heard - tick) :]))
            for place, image in shown if seat.sink.pictures is not False else ():
                seat.sink.write(items.Frame((tick + place * self.model.spec.grain) / rate, image))
            seat.heard = tick + ticks
        self.scheduler.feed(seat.stream, x)

    def lose(self, seat: Seat, gap: Lost) -> None:
        """A gap, and all that waited before it."""
        start, why, rate = seat.stream.received, clean(gap.why), self.model.rate
        answers = self.scheduler.gap(seat.stream, gap.ticks, gap.how)
        self.tell(answers, {"start": start, "length": gap.ticks, "why": why})
        if start + gap.ticks > seat.heard and not self.once.knows(seat.session, GAP, start):
            first, length = items.to_seconds(start, rate), items.to_seconds(gap.ticks, rate)
            seat.sink.write(items.TimedGap(first, length, why, gap.how))
            self.once.add(seat.session, GAP, start, time.time())
            self.figures.counts["gaps"] += 1
        seat.heard = max(seat.heard, start + gap.ticks)
        seat.told = max(seat.told, seat.stream.steps)

    def tell(self, answers: Sequence[Answer], gap: Mapping[str, Any] | None = None) -> None:
        """Answers of streams to their clients and sinks; the last of them with a ``gap``."""
        for answer in answers:
            seat, stream, opened = self.by_stream[answer.stream], answer.stream, answer.stream.open
            passed = gap if answer is answers[-1] else None
            self.figures.add_wait(answer.waited)
            if answer.first >= seat.told:
                self.tell_sink(seat, answer, opened)
            if seat.client is not None:
                text = said.text_of(
                    "answer",
                    ack=answer.answered,
                    first=answer.first,
                    next=stream.steps if passed else answer.first + len(answer.posteriors),
                    posteriors=said.encode_posteriors(answer.posteriors) if seat.posteriors else None,
                    events=said.rows_of(answer.events),
                    open=said.rows_of(opened) or None,
                    waited=round(answer.waited, 4),
                    warnings=list(answer.warnings) or None,
                    gap=passed,
                )
                self.news.append(News(seat.client, text, answer.answered))

    def tell_sink(self, seat: Seat, answer: Answer, opened: Sequence[Event]) -> None:
        """An answer to its sink, with the events that are open; those that have ended to all who watch."""
        rate, session = self.model.rate, seat.session
        steps = items.Steps(answer.first, answer.posteriors, answer.waited)
        events = [event for event in answer.events if not self.once.knows(session, event.label, event.start)]
        tell_answer(seat.sink, rate, events, steps, opened, answer.warnings)
        seat.told = answer.first + len(answer.posteriors)
        self.figures.counts["events"] += len(events)
        for event in events:
            self.once.add(session, event.label, event.start, time.time())
            row = {"type": "event", "stream": seat.name} | items.TimedEvent.of(event, rate).row()
            self.news.append(News(None, json.dumps(row)))

    def seal(self, seat: Seat) -> str:
        """What a stream remembers now."""
        sealed = Sealed(seat.session, seat.stream.received, seat.began, self.scheduler.snapshot(seat.stream))
        text = self.seals.seal(sealed, time.time())
        slow = len(text) > LARGE_SEAL or self.figures.load > BUSY
        seconds = SLOW_SEAL_SECONDS if slow else SEAL_SECONDS
        seat.due = time.monotonic() + seconds * random.uniform(0.75, 1.25)  # those who came together part
        return text

    def news_of_seal(self, seat: Seat) -> News:
        """A seal for a client, and up to where it knows the stream."""
        return News(seat.client, said.text_of("seal", seal=self.seal(seat), tick=seat.stream.received))

    def drop(self, seat: Seat) -> None:
        """A seat's stream is of no use any more; so is its client."""
        self.by_client.pop(seat.client, None)
        self.scheduler.leave(self.by_stream.pop(seat.stream).stream)

    def finish(self, seat: Seat) -> None:
        """A stream is over: its last answers."""
        answers = self.scheduler.close(seat.stream)
        self.tell(answers)
        seat.sink.leave()
        self.by_client.pop(seat.client, None)
        del self.seats[seat.session], self.by_stream[seat.stream]

    def look(self, now: float) -> None:
        """End the streams of clients that have been away for long; sum up the last second."""
        self.tell_untold()
        away = sorted((seat for seat in self.seats.values() if seat.client is None), key=lambda seat: seat.left)
        for number, seat in enumerate(away):
            if now - seat.left > KEPT_SECONDS or len(away) - number > MAX_KEPT:
                self.finish(seat)
        self.once.forget(time.time())
        self.figures.sum_up(now)

    def send_all_away(self) -> None:
        """Last answers and seals; the streams may go on elsewhere."""
        self.tell_untold()
        while answers := self.scheduler.turn():
            self.tell(answers)
        for client, seat in self.by_client.items():
            self.news.append(self.news_of_seal(seat))
            self.news.append(News(client, end=Refused(said.STOPPING, "the server stops, or has another model now")))
        for seat in self.seats.values():
            seat.sink.leave()
