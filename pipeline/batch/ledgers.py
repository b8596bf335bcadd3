"""The ledgers of all shards: their rows, once it is certain that together they are all."""

import glob
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from pipeline.batch.ledger import Ledger
from pipeline.batch.tally import Columns, Tally, record
from pipeline.core.errors import ConfigError, FailOn, UserError
from pipeline.sinks.fanout import Fanout
from pipeline.sinks.items import FileResult


class Ledgers:
    """What ``source=files`` with ``source.shard`` has written, put together; no model is needed."""

    def __init__(self, paths: str | list[str], partial: bool = False, fail_on: FailOn = "errors") -> None:
        """``paths`` of ledgers, or globs. ``partial``: what is there will do, if something is missing."""
        self.partial, self.fail_on = partial, fail_on
        given = [paths] if isinstance(paths, str) else paths
        self.paths = list(dict.fromkeys(path for one in given for path in matching(one)))
        if not self.paths:
            raise ConfigError(
                f"source.paths: {', '.join(given)} matches no ledger; source=files writes NAME.ledger beside NAME"
            )

    def merge(self, sink: Fanout) -> Tally:
        """All results into the sinks, sorted by path and time. ConfigError if they are of different models, settings or
        listings; UserError if some are missing.
        """
        sink.check_overwrites(self.paths)
        with ExitStack() as stack:
            ledgers = []
            for path in self.paths:
                try:
                    ledgers.append(stack.enter_context(Ledger(path, reading=True)))
                except OSError as error:
                    raise ConfigError(f"source.paths: {path}: {error.strerror}") from None
                except ConfigError as error:
                    raise ConfigError(f"source.paths: {error} (those of source=files end in .ledger)") from None
            sink.check_files()
            check_same_run(ledgers)
            if lacking := missing(ledgers):
                if not self.partial:
                    raise UserError(f"{lacking} (source.partial=true takes what is there)")
                print(f"warning: {lacking}", file=sys.stderr)
            columns = Columns(
                any(ledger.timed for ledger in ledgers),
                any(ledger.labelled for ledger in ledgers),
                (ledgers[0].head or {}).get("decoder") is not None,
            )
            return record(columns.of(in_order(ledgers)), sink, sink.write)


def matching(path: str) -> Iterator[str]:
    """The file itself, or what a pattern matches."""
    name = str(Path(path).expanduser())
    return iter([name] if Path(name).exists() or not glob.has_magic(name) else sorted(glob.glob(name, recursive=True)))


def check_same_run(ledgers: Sequence[Ledger]) -> None:
    """ConfigError if they do not belong together."""
    first = ledgers[0].head or {}
    for ledger in ledgers:
        if ledger.head is None:
            raise ConfigError(f"source.paths: {ledger.path} is empty")
        other = [key for key in first if key != "shard" and ledger.head.get(key) != first[key]]
        if other:
            raise ConfigError(f"source.paths: {ledger.path} has another {' and '.join(other)} than {ledgers[0].path}")


def missing(ledgers: Sequence[Ledger]) -> str:
    """What is not there of the whole listing, in words; '' if nothing is missing."""
    shards = [str((ledger.head or {}).get("shard")) for ledger in ledgers]
    if len(set(shards)) < len(shards) or len({shard.rpartition("/")[2] for shard in shards}) > 1:
        raise ConfigError(f"source.paths: they are of shards {', '.join(shards)}; expected each of 1/n to n/n once")
    total = int(shards[0].rpartition("/")[2])
    wanted = [f"{number}/{total}" for number in range(1, total + 1)]
    lacking = []
    if absent := [shard for shard in wanted if shard not in shards]:
        lacking.append(f"there is no ledger of shard {', '.join(absent)}")
    for ledger in ledgers:
        if ledger.complete is None:
            lacking.append(f"{ledger.path} is of a run that has not ended; start the same command again")
        elif ledger.damaged or len(ledger.known) != ledger.complete["rows"]:
            lacking.append(f"{ledger.path} is damaged; start the same command again")
    done = [ledger.complete for ledger in ledgers if ledger.complete]
    if len({(facts["count"], facts["digest"]) for facts in done}) > 1:
        lacking.append("the shards did not find the same files; list them once, and give all shards that list")
    elif not lacking and sum(facts["rows"] for facts in done) != done[0]["count"]:
        lacking.append(f"{sum(facts['rows'] for facts in done)} rows of {done[0]['count']} are there")
    return "; ".join(lacking)


def in_order(ledgers: Sequence[Ledger]) -> Iterator[FileResult]:
    """The newest result of each entry, by path and time."""
    found = []
    for number, ledger in enumerate(ledgers):
        for place in ledger.known.values():
            result = ledger.result(place)
            found.append((result.path, result.start, number, place))
    for _, _, number, place in sorted(found):
        yield ledgers[number].result(place)
