"""Groups of unlabelled clips by the encoder of a trained model, beside plain statistics: how far they are the classes.

    python benchmarks/groups.py RUN RUN ...           # runs whose test clips are files, such as of experiment=digits

The clips are each run's own test clips, which it has never learnt; their labels are only compared with. Embeddings are
those of ``infer.py output=embeddings``. Plain statistics are mean and deviation of 40 log-mel bands. K-means has as many
groups as there are classes, and is begun five times. NMI is that of scikit-learn. Draws docs/groups.png of the first.
"""

import json
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import matplotlib
import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import normalized_mutual_info_score
from table import report

from pipeline.extractors.logmel import LogMel
from pipeline.media.chunks import read_chunk
from pipeline.model.classifier import load
from pipeline.model.embedding import embedding_of

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SEEDS = range(5)


def test_clips(run):
    rows = [json.loads(line) for line in (run / "answers.jsonl").read_text().splitlines()]
    return [(row["name"], row["truth"]) for row in rows if row["split"] == "test" and Path(row["name"]).is_file()]


@torch.inference_mode()
def vectors(model, paths):
    """The embedding of each clip, and mean and deviation of its log-mel bands, every column by its own deviation."""
    plain, found = LogMel(model.rate, mels=40), ([], [])
    for path in paths:
        parts, _ = read_chunk(path, model.spec)
        x = model.pad((parts[0][None],), len(parts[0]))
        y, _ = model(x, model.initial(1))
        bands, _ = plain(x[:, : x.shape[1] // plain.hop * plain.hop], plain.initial(1))
        found[0].append(y[0, int(model.last_step(torch.tensor([len(parts[0])])))].numpy())
        found[1].append(torch.cat([bands[0].mean(0), bands[0].std(0)]).numpy())
    return [(x - x.mean(0)) / (x.std(0) + 1e-9) for x in map(np.array, found)]


def shared(x, truth):
    count = len(set(truth))
    made = [KMeans(count, n_init=10, random_state=seed).fit_predict(x) for seed in SEEDS]
    return statistics.mean(normalized_mutual_info_score(truth, groups) for groups in made)


def draw(path, x, truth):
    places = PCA(2).fit_transform(x)
    figure, axis = plt.subplots(figsize=(6, 5), layout="constrained")
    for label in sorted(set(truth)):
        own = places[[one == label for one in truth]]
        axis.plot(*own.T, ".", label=label)
    axis.legend(fontsize=8)
    axis.set(xticks=[], yticks=[], title="embeddings of unheard clips, by their two main axes")
    figure.savefig(path, dpi=110)


def main():
    runs = [Path(name) for name in sys.argv[1:]]
    if not runs:
        sys.exit(__doc__)
    rows = []
    for number, run in enumerate(runs):
        paths, truth = zip(*test_clips(run))
        embedded, plain = vectors(embedding_of(load(run), live=False), paths)
        if not number:
            draw(ROOT / "docs" / "groups.png", embedded, truth)
        name = json.loads((run / "metrics.json").read_text())["settings"]["name"]
        rows.append(
            [name, len(paths), len(set(truth)), f"{shared(embedded, truth):.3f}", f"{shared(plain, truth):.3f}"]
        )
    report(
        "groups",
        ["experiment", "test clips", "classes", "NMI, embedding", "NMI, plain statistics"],
        rows,
        "k-means, mean of 5 beginnings",
    )


if __name__ == "__main__":
    main()
