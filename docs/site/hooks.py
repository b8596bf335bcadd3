"""What mkdocs does beside turning docs/ into pages: it adds the reference, the README and what pages link to."""

import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import notebook
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from reference import groups, pages

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COPY = TemporaryDirectory()
LINK = re.compile(r"(?<=\]\()[^)#\s]+")


@event_priority(100)  # before mkdocstrings reads it
def on_config(config: Any) -> None:
    """Fill the navigation, and give mkdocstrings the code with an ``__init__.py`` in each folder: its reader wants one,
    Python does not.
    """
    fill(config.nav)
    shutil.copytree(ROOT / "pipeline", Path(COPY.name) / "pipeline", dirs_exist_ok=True)
    for folder in Path(COPY.name).glob("pipeline/*/"):
        (folder / "__init__.py").touch()
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [COPY.name]


def fill(navigation: list[dict[str, Any]]) -> None:
    """Give each group of settings its place, and each page that no section names."""
    named = re.findall(r"[\w/]+\.md", str(navigation))
    more = {
        "Settings": [{name: f"reference/{name}.md"} for name in groups()],
        "Tasks": sorted(path.name for path in DOCS.glob("*.md") if path.name not in named),
    }
    sections = [part for one in navigation for entries in one.values() if isinstance(entries, list) for part in entries]
    for section in sections:
        for name in more.keys() & (section.keys() if isinstance(section, dict) else ()):
            section[name] += more[name]


def on_files(files: Files, config: Any) -> Files:
    """Add the README as the first page, each file outside of docs/ that is linked to, and the reference."""
    found = {"index.md": ROOT / "README.md"} | {
        str(path.relative_to(ROOT)): path for page in DOCS.glob("*.md") for path in outside(page)
    }
    for path in outside(ROOT / "README.md"):
        found[str(path.relative_to(ROOT))] = path
    for name, path in found.items():
        content = move(path.read_text(), path) if path.suffix == ".md" else path.read_bytes()
        files.append(File.generated(config, name, content=content))
    for path in DOCS.glob("*.ipynb"):
        text, pictures = notebook.page(path)
        for name, content in {f"{path.stem}_notebook.md": text, **pictures}.items():
            files.append(File.generated(config, name, content=content))
    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The text of a page of docs/ with links that hold in the site."""
    path = page.file.abs_src_path
    return move(markdown, Path(path)) if path else markdown


def outside(page: Path) -> set[Path]:
    """The files that a page links to and that are not in docs/, and those that such a page links to."""
    found: set[Path] = set()
    waiting = [page]
    while waiting:
        page = waiting.pop()
        for name in LINK.findall(page.read_text()):
            path = (page.parent / name).resolve()
            if path.is_file() and DOCS not in path.parents and path not in found and path != ROOT / "README.md":
                found.add(path)
                waiting += [path] if path.suffix == ".md" else []
    return found


def move(text: str, path: Path) -> str:
    """The text of a file with its links seen from the site's root, where docs/ and the repository are one folder."""

    def target(match: re.Match[str]) -> str:
        linked = (path.parent / match[0]).resolve()
        for folder in (DOCS, ROOT):
            if folder in linked.parents and "://" not in match[0]:
                name = str(linked.relative_to(folder)).replace(".ipynb", "_notebook.md")
                return "index.md" if name == "README.md" else name
        return match[0]

    return LINK.sub(target, text)
