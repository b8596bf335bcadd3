"""Pages of all settings: keys, defaults and comments from the yamls, types and other words from the constructors."""

import inspect
import json
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from pipeline.core.build import find, makers, schema

CONF = Path(__file__).resolve().parents[2] / "conf"
PROGRAMS = ("train", "infer")
NAMES = {int: "whole number", float: "number", str: "text", bool: "true, false", type(None): "null", dict: "mapping"}
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


class Yaml(NamedTuple):
    """A file of conf/: what its first lines say, values and comments by dotted key, and the files that it extends."""

    head: str
    values: dict[str, Any]
    comments: dict[str, str]
    parents: list[str]
    target: str | None


def read(path: Path) -> Yaml:
    """A file of conf/, without its keys for Hydra."""
    plain = yaml.safe_load(path.read_text()) or {}
    defaults = plain.pop("defaults", [])
    named = [one.removesuffix("@_here_") for one in defaults if isinstance(one, str) and one != "_self_"]
    parents, inside = [one for one in named if "@" not in one], [one.split("@") for one in named if "@" in one]
    chosen = {key: option for one in defaults if isinstance(one, dict) for key, option in one.items()}
    values: dict[str, Any] = {key: option for option, key in inside}
    comments = {key: f"all settings of `{path.parent.name}={option}`" for option, key in inside}
    for name, option in chosen.items():
        if not name.startswith("override"):
            group, _, key = name.lstrip("/").partition("@")
            values[key or group], comments[key or group] = option, f"an option of [{group}]({group}.md)"
    target = plain.pop("_target_", None)
    plain.pop("hydra", None)
    head, own = read_comments(path.read_text())
    return Yaml(head, values | dict(flat(plain)), comments | own, parents, target)


def flat(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """What stands at the ends of nested settings; a range or a choice of a sweep is one value."""
    if isinstance(value, dict) and not (at and value.keys() <= {"low", "high", "step", "log", "choices"}):
        for key, inner in value.items():
            yield from flat(inner, f"{at}.{key}" if at else key)
    else:
        yield at, value


def read_comments(text: str) -> tuple[str, dict[str, str]]:
    """The comment at the head of a yaml, and that of each key, over all its lines."""
    head, comments, stack = "", dict[str, str](), list[tuple[int, str]]()
    for line in text.splitlines():
        before, _, comment = f" {line}".partition(" # ")
        if found := re.match(r" ( *)(\w+):", before):
            stack = [one for one in stack if one[0] < len(found[1])] + [(len(found[1]), found[2])]
        if not comment or comment.startswith("@package"):
            continue
        if not stack:
            head += f" {comment}"
        else:
            key = ".".join(name for _, name in stack)
            comments[key] = f"{comments.get(key, '')} {comment.strip()}".strip()
    return head.strip(), comments


def describe(hint: Any) -> str:
    """A type hint in words: 'number ≥ 0 or null'."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = [m for one in inner[1:] for m in (one.metadata if isinstance(one, FieldInfo) else [one])]
        said = [f"{sign} {getattr(m, key)}" for m in limits for key, sign in SIGNS.items() if hasattr(m, key)]
        return " ".join([describe(inner[0]), *said])
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(describe, inner)))
    if origin is Callable:
        return describe(inner[1])
    if origin in (list, tuple, dict):
        parts = " and ".join(dict.fromkeys(describe(one) for one in inner if one is not Ellipsis))
        return f"{NAMES.get(origin, 'list')} of {parts}"
    return NAMES.get(hint) or f"`{getattr(hint, '__name__', 'any value')}`"


def sentence(maker: Callable[..., Any], key: str) -> str:
    """What the docstrings of a constructor say of an argument."""
    docs = [inspect.getdoc(one) or "" for one in (*makers(maker), *getattr(maker, "__mro__", (maker,)))]
    for doc in docs:
        if found := re.search(rf"``{key}``(?:,? (?:and )?``\w+``)*:? (.+?)(?=[.;](?:\s|$))", doc, re.S):
            return " ".join(found[1].split())
    return ""


def rows(group: str, text: Yaml, maker: Callable[..., Any] | None, others: dict[str, str]) -> Iterator[str]:
    """The lines of the table of a yaml's own keys."""
    hints = schema(maker) if maker else {}
    yield from ("| key | default | type | meaning |", "| --- | --- | --- | --- |")
    for key, value in text.values.items():
        names = key.split(".")
        above = (text.comments.get(".".join(names[:count])) for count in range(len(names), 0, -1))
        known = (text.comments.get(key), others.get(key), others.get(names[-1]), *above)
        told = next(filter(None, known), None) or (sentence(maker, key) if maker else "")
        kind = describe(hints[key]) if key in hints else ""
        default = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
        name = f"{group}.{key}" if group else key
        yield "| " + " | ".join(escape(one) for one in (f"`{name}`", f"`{default}`", kind, plain(told))) + " |"


def escape(text: str) -> str:
    """Text for a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def plain(text: str) -> str:
    """A comment or a docstring as Markdown."""
    text = text.replace("``", "`").replace("<", "&lt;")
    return text if "`" in text else re.sub(r"(\{[^{}]*\}|\[[^(]*\](?!\())", r"`\1`", text)


def option(group: str, path: Path, others: dict[str, str]) -> str:
    """The section of one yaml of a group."""
    text = read(path)
    maker = find(text.target, object, group) if text.target else None
    own = maker is not None and maker.__module__.startswith(("pipeline", "datasets"))
    lines = [f"## {path.stem}", "", plain(text.head)]
    if own and not text.head:
        lines += [plain((inspect.getdoc(maker) or "").partition("\n\n")[0])]
    lines += ["", f"`{group}={path.stem}`" + (f" builds `{text.target}`." if text.target else ""), ""]
    if text.values:
        lines += [*rows(f"{group}.{path.stem}" if group == "sink" else group, text, maker, others), ""]
    if text.parents:
        links = ", ".join(f"[{one.removeprefix('shared/')}](#{one.removeprefix('shared/')})" for one in text.parents)
        lines += [f"{'Its other' if text.values else 'Its'} keys are those of {links}.", ""]
    return "\n".join(lines)


def experiment(path: Path) -> str:
    """The section of a prepared experiment: the keys that it sets."""
    text = path.read_text().replace("# @package _global_\n", "")
    return f"## {path.stem}\n\n```yaml\n{text}```\n"


def group_page(group: str) -> str:
    """The page of a group: a section for each of its options, and for what they share."""
    paths = [*sorted((CONF / group).glob("*.yaml")), *sorted((CONF / group / "shared").glob("*.yaml"))]
    if group == "experiment":
        return "\n".join([f"# {group}", *map(experiment, paths)])
    others: dict[str, str] = {}
    for path in paths:
        others |= {key: told for key, told in read(path).comments.items() if key not in others}
    return "\n".join([f"# {group}\n", *(option(group, path, others) for path in paths)])


def program_page(name: str, program: Callable[..., Any]) -> str:
    """The page of a program: its own keys, and its groups."""
    text = read(CONF / f"{name}.yaml")
    groups = {key: value for key, value in text.values.items() if (CONF / key).is_dir()}
    own = text._replace(values={key: value for key, value in text.values.items() if key not in groups})
    lines = [f"# {name}.py\n", (inspect.getdoc(program) or "") + "\n", "## Groups\n", "| group | options | default |"]
    lines += ["| --- | --- | --- |"]
    for group, chosen in groups.items():
        options = " ".join(f"[`{path.stem}`]({group}.md#{path.stem})" for path in sorted((CONF / group).glob("*.yaml")))
        lines += [f"| [{group}]({group}.md) | {options} | `{json.dumps(chosen)}` |".replace('"', "")]
    return "\n".join(
        [*lines, "\n## Keys\n", *rows("", own, program, read(CONF / "decoder" / "hysteresis.yaml").comments), ""]
    )


def pages() -> dict[str, str]:
    """All pages of settings, by name."""
    from infer import infer
    from train import train

    found = {f"{name}.md": program_page(name, program) for name, program in zip(PROGRAMS, (train, infer), strict=True)}
    return found | {f"{group}.md": group_page(group) for group in groups()}


def groups() -> list[str]:
    """The groups of settings: the folders of conf/."""
    return sorted(path.name for path in CONF.iterdir() if any(path.glob("*.yaml")))
