"""Events to a web server, one HTTP POST of JSON each."""

import json
import random
import ssl
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from pydantic import PositiveFloat

from pipeline.core.errors import ConfigError
from pipeline.sinks.async_sink import AsyncSink
from pipeline.sinks.items import Row

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.25, 30.0  # before the next attempt: twice as long each time
BODY_BYTES = 1 << 16  # of an answer's body that are read, and thrown away
TRY_AGAIN = (408, 425, 429)  # status codes of a server that may accept it later, as all from 500 on


@dataclass(eq=False)
class Webhook(AsyncSink):
    """Each event as ``{"type": "event", "stream", "number", "start", "end", "peak", "label", "score"}``.

    The connection stays open between events. Attempts that failed are made again, no sooner than the server's
    Retry-After; so a server can get an event twice, with the same header Idempotency-Key. Certificates of https are
    verified. Redirections are not followed: they would turn a POST into a GET, and carry tokens to other servers.

    ``headers``: e.g. a token. ``timeout``: seconds for an answer. ``patience``: seconds after which an event is given
    up.
    """

    url: str = field(repr=False)  # which may have a token
    headers: dict[str, str] | None = field(default=None, repr=False)
    timeout: PositiveFloat = 5.0
    patience: PositiveFloat = 300.0

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            parts = urlsplit(self.url)
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 80) > 0
        except ValueError:
            known = False
        if not known or parts.username or " " in self.url or not is_printable_ascii(self.url):
            raise ConfigError(
                "sink.webhook.url: expected http or https, a server and a path, in ASCII (%-encoded), without a user; "
                "tokens go into sink.webhook.headers"
            )
        for name, value in (self.headers or {}).items():
            if not is_printable_ascii(f"{name}{value}") or ":" in name:
                raise ConfigError(f"sink.webhook.headers: {name!r}: expected printable ASCII in one line")
        self.server, self.run = parts.netloc, uuid.uuid4().hex
        self.sent = {"Content-Type": "application/json", "User-Agent": "rivulet"} | (self.headers or {})
        self.pool, self.not_before = connections(parts.scheme, parts.netloc), 0.0  # on time.monotonic

    def deliver(self, row: Row) -> str:
        """Try until it is accepted, refused, or too late."""
        limit, wait, reason = time.monotonic() + self.patience, 0.0, ""
        while True:
            now = time.monotonic()
            pause = max(self.not_before - now, wait * random.uniform(0.5, 1))  # many clients should not come at once
            self.pause(min(pause, limit - now))
            if wait and time.monotonic() >= min(limit, self.until):
                return reason
            reason, again = self.attempt(row)
            if not again:
                return reason
            wait = min(2 * wait, LONGEST_WAIT_SECONDS) or FIRST_WAIT_SECONDS

    def attempt(self, row: Row) -> tuple[str, bool]:
        """One POST: what went wrong, and whether another attempt may help."""
        key = {"Idempotency-Key": f"{self.run}-{row['number']}"}
        timeout = max(0.1, min(self.timeout, self.until - time.monotonic()))
        try:
            answer = self.pool.request(
                "POST", self.url, body=json.dumps(row), headers=self.sent | key, timeout=timeout, retries=False,
                redirect=False, preload_content=False,
            )  # fmt: skip
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            return str(error) or type(error).__name__, not isinstance(error, ValueError)
        read_body(answer, timeout)
        if answer.status < 300:
            return "", False
        self.not_before = time.monotonic() + seconds_to_wait(answer)
        return f"HTTP {answer.status}", answer.status >= 500 or answer.status in TRY_AGAIN

    def summary(self, missing: int, reason: str) -> str:
        """What was not delivered, and to whom."""
        return f"sink=webhook: {missing} of {self.count} events did not reach {self.server} (the last: {reason})"


def is_printable_ascii(text: str) -> bool:
    """Whether a text can stand in a line of HTTP."""
    return text.isascii() and text.isprintable()


def connections(scheme: str, server: str) -> urllib3.PoolManager:
    """Connections that stay open, through the proxy that the environment names for this server. ConfigError if that is
    of no kind that is known.
    """
    context, proxy = ssl.create_default_context(), getproxies().get(scheme)
    if not proxy or proxy_bypass(server):
        return urllib3.PoolManager(ssl_context=context)
    try:
        url = urllib3.util.parse_url(proxy if "://" in proxy else f"http://{proxy}")
        headers = urllib3.make_headers(proxy_basic_auth=unquote(url.auth)) if url.auth else None
        return urllib3.ProxyManager(url._replace(auth=None).url, proxy_headers=headers, ssl_context=context)
    except urllib3.exceptions.HTTPError as error:
        raise ConfigError(
            f"{scheme}_proxy: cannot be used by sink=webhook: {error}; expected http://SERVER:PORT"
        ) from None


def read_body(answer: urllib3.BaseHTTPResponse, seconds: float) -> None:
    """Read an answer to its end, so that the connection can be used again; one that is too long, too slow or broken
    ends it.
    """
    end, size = time.monotonic() + seconds, 0
    with suppress(OSError, urllib3.exceptions.HTTPError):
        while size < BODY_BYTES and time.monotonic() < end:
            if not (data := answer.read1(BODY_BYTES)):
                return
            size += len(data)
    answer.close()


def seconds_to_wait(answer: urllib3.BaseHTTPResponse) -> float:
    """What Retry-After says, be it a number or a date; 0 without one that makes sense."""
    try:
        return urllib3.Retry().get_retry_after(answer) or 0.0
    except urllib3.exceptions.InvalidHeader:
        return 0.0
