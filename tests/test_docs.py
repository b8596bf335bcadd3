"""The documents: each file, link and option of ``conf/`` that they name exists."""

import re
import shlex

import pytest
from conftest import ROOT, configured, options

from conf.command_line import prepare

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
GROUPS = {folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir()}
FOLDERS = ("pipeline/", "datasets/", "conf/", "tests/", "benchmarks/", "docs/")
EXAMPLES = {"mine", "leaky", "tally", "first"}  # of parts that a reader adds


def named_paths(text):
    for name in re.findall(r"[\w./*{}-]+/[\w./*{}-]*|\b\w+\.(?:py|md)\b", text):
        if name.startswith(FOLDERS) or name in ("train.py", "infer.py"):
            yield name.rstrip(".")


def named_options(text):
    """Of the command lines and the tables of groups."""
    for group, values in re.findall(r"(?<![\w.@+~])([a-z]+)=\[?([a-z][\w]*(?:,[a-z]\w*)*)\b(?![/.(])", text):
        if group in GROUPS:
            yield from ((group, value) for value in values.split(","))
    for group, row in re.findall(r"^\| `(\w+)`[^|]*\| ([^\n]*) \|$", text, re.M):
        if group in GROUPS:
            yield from ((group, value) for value in re.findall(r"`(\w+)`", row))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_exists(page):
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        assert "://" in link or (page.parent / link).exists(), link
    for name in named_paths(text):
        if not any(example in name for example in EXAMPLES):
            assert list(ROOT.glob(name)), name
    for module in re.findall(r"\b(?:pipeline|datasets)(?:\.[a-z_0-9]+)+", text):
        path = ROOT.joinpath(*module.split("."))
        assert any(one.exists() for one in (path, path.with_suffix(".py"), path.parent.with_suffix(".py"))), module
    missing = [(group, value) for group, value in named_options(text) if value not in options(group)]
    assert not [pair for pair in missing if pair[1] not in EXAMPLES | {"null"}], missing


def test_each_kept_result_is_named_in_the_results():
    text = (ROOT / "docs" / "results.md").read_text()
    for path in (ROOT / "benchmarks" / "results").iterdir():
        name, date = path.stem[:-11], path.stem[-5:]
        assert re.search(rf"^\|.*`{name}`.*\b{date}\b", text, re.M), path.name


def test_the_costs_in_the_readme_are_those_that_were_kept():
    (kept,) = (ROOT / "benchmarks" / "results").glob("models_recipes-*.txt")
    costs = {row[0]: row for line in kept.read_text().splitlines() if len(row := line.split()) == 8}
    text = (ROOT / "README.md").read_text()
    table = re.findall(r"^\| `(\w+)` .*\| ([\d.]+) MB \| ([\d.]+) ms \| (\d+) \|$", text, re.M)
    assert len(table) >= 5
    for name, *given in table:
        assert given == [costs[name][2], costs[name][3], costs[name][7]], name


def commands(text):
    """The command lines of the programs: which one, and what it is given, with the first of several values."""
    for program, line in re.findall(r"python (?:CLONE/)?(train|infer)\.py ([^\n`]*)", text):
        line = re.split(r"\s{3,}|\s#|\s\\?\| ", line)[0]
        given = shlex.split("" if re.search("KIND|-sc ", line) else line, comments=False)
        plain = [one for one in given if re.match(r"[+a-z][\w.@/]*=[^(]*$", one)]
        yield program, [re.sub(r"(=[^,\[{ ]*),.*", r"\1", one) for one in plain]


def test_the_commands_of_the_pages_compose():
    """One for each set of keys and options, whatever the values of the keys, unless another one has them, too."""
    found = {}
    for page in [*PAGES, *(ROOT / "conf").glob("*.yaml")]:
        for program, given in commands(page.read_text()):
            if not any(one.startswith(("plugins=", "cell=leaky", "experiment=first")) for one in given):
                given = [prepare(one, multirun=True) for one in given]
                keys = {
                    one if re.split("[=@]", one.strip("+"))[0] in GROUPS else one.partition("=")[0] for one in given
                }
                found[program, frozenset(keys)] = program, given
    widest = [one for one in found if not any(one[0] == other[0] and one[1] < other[1] for other in found)]
    for program, given in map(found.get, widest):
        configured(program, *given)  # a command that cannot be read is named by the error
    assert len(widest) > 60
