"""Events to a web server, one HTTP POST of JSON each."""

import http.client
import json
import random
import time
import urllib.error
import urllib.request
import uuid
from typing import Any
from urllib.parse import urlsplit

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from pipeline.core.errors import ConfigError
from pipeline.sinks.outbox import Outbox
from pipeline.sinks.sink import Row

FIRST, MOST = 0.25, 30.0  # seconds until the next attempt: twice as many each time, up to the second
AGAIN = (408, 425, 429)  # answers of a server that may think better of it, as all from 500 on


class Direct(urllib.request.HTTPRedirectHandler):
    """Follows no redirections: they would turn a POST into a GET, and carry tokens to other servers."""

    def redirect_request(self, *given: Any) -> None:
        """None."""


class Webhook(Outbox):
    """Each event as ``{"type": "event", "stream", "number", "start", "end", "peak", "label", "score"}``.

    Attempts that failed are made again, so a server can get an event twice, with the same header Idempotency-Key.
    Certificates of https are verified.
    """

    def __init__(
        self,
        url: str | None = None,
        headers: dict[str, str] | None = None,
        timeout: PositiveFloat = 5.0,
        patience: PositiveFloat = 300.0,
        queue: PositiveInt = 1000,
        grace: NonNegativeFloat = 5.0,
    ) -> None:
        """``headers``: e.g. a token. ``timeout``: seconds for an answer. ``patience``: seconds after which an event is
        given up. ``queue``: events that wait at most; then the oldest are dropped. ``grace``: seconds for what is left
        at the end.
        """
        super().__init__(queue, 1, grace)
        if url is None:
            raise ConfigError("sink.webhook.url: is not set; give the address that gets a POST for each event")
        try:
            parts = urlsplit(url)
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 80) > 0
        except ValueError:
            known = False
        if not known or parts.username or not url.isascii() or not url.isprintable() or " " in url:
            raise ConfigError(
                "sink.webhook.url: expected http or https, a server and a path, in ASCII (%-encoded), without a user; "
                "tokens go into sink.webhook.headers"
            )
        for name, value in (headers or {}).items():
            if not (f"{name}{value}".isprintable() and name.isascii() and str(value).isascii()) or ":" in name:
                raise ConfigError(f"sink.webhook.headers: {name!r}: expected printable ASCII in one line")
        self.url, self.server = url, parts.netloc
        self.headers = {"Content-Type": "application/json", "User-Agent": "rivulet"} | (headers or {})
        self.timeout, self.patience, self.run = timeout, patience, uuid.uuid4().hex
        self.opener = urllib.request.build_opener(Direct)

    def deliver(self, row: Row) -> str:
        """Try until it is accepted, refused, or too late."""
        limit, wait = time.monotonic() + self.patience, FIRST
        while True:
            reason, final = self.attempt(row)
            if not reason or final:
                return reason
            self.pause(wait * random.uniform(0.5, 1))  # many clients should not come back at once
            wait = min(2 * wait, MOST)
            if time.monotonic() >= min(limit, self.until):
                return reason

    def attempt(self, row: Row) -> tuple[str, bool]:
        """One POST: what went wrong, and whether it would again."""
        key = {"Idempotency-Key": f"{self.run}-{row['number']}"}
        body = json.dumps(row).encode()
        request = urllib.request.Request(self.url, body, self.headers | key, method="POST")
        timeout = max(0.1, min(self.timeout, self.until - time.monotonic()))
        try:
            with self.opener.open(request, timeout=timeout):
                return "", False
        except urllib.error.HTTPError as error:
            error.close()
            return f"HTTP {error.code}", error.code < 500 and error.code not in AGAIN
        except (OSError, http.client.HTTPException) as error:
            return f"{getattr(error, 'reason', '') or error or type(error).__name__}", False
        except ValueError as error:
            return str(error), True

    def told(self, missing: int, reason: str) -> str:
        """What was not delivered, and to whom."""
        return f"sink=webhook: {missing} of {self.number} events did not reach {self.server} (the last: {reason})"
