"""The notebook of docs/ runs from its first cell to its last, with recordings and without any."""

import importlib.util
import re

import pytest
from conftest import DATA, ROOT

nbclient = pytest.importorskip("nbclient", reason="needs nbclient: make docs")
nbformat = pytest.importorskip("nbformat")
pytestmark = pytest.mark.skipif(not importlib.util.find_spec("ipykernel"), reason="needs ipykernel: make docs")
PATH = ROOT / "docs" / "lecture.ipynb"


def printed(notebook):
    return [output["text"] for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output]


@pytest.mark.parametrize("data", [DATA, pytest.param("nowhere", marks=pytest.mark.long)])
def test_the_lecture(data, monkeypatch):
    monkeypatch.setenv("RIVULET_DATA", str(data))
    notebook = nbformat.read(PATH, 4)
    where = {"metadata": {"path": str(ROOT / "docs")}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    differences = [float(number) for text in printed(notebook) for number in re.findall(r"differs? by (\S+)", text)]
    assert len(differences) == 12 and max(differences) < 1e-5
    assert sum("image/png" in str(cell) for cell in notebook.cells) == 3
