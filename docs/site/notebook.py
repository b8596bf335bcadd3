"""A notebook as a page: words as they are, code and what it printed in blocks, pictures as files."""

import base64
import json
import re
from pathlib import Path


def page(path: Path) -> tuple[str, dict[str, bytes]]:
    """The Markdown of a notebook that has been run, and its pictures by name."""
    parts, pictures = [f"*The notebook: [{path.name}]({path.name}).*"], dict[str, bytes]()
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        for output in cell["outputs"]:
            if said := "".join(output.get("text", [])):
                parts.append(f"```text\n{said.rstrip()}\n```")
            if picture := output.get("data", {}).get("image/png"):
                name = f"{path.stem}_{len(pictures)}.png"
                pictures[name] = base64.b64decode("".join(picture))
                parts.append(f"![what the code above has drawn]({name})")
    title, *rest = re.split(r"(?<=\n)\n", "\n\n".join(parts[1:]), maxsplit=1)
    return "\n\n".join([title, parts[0], *rest]), pictures
