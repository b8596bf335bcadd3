"""Any number of labels at once, also none: each label of a step has a posterior of its own, 0 to 1."""

from pipeline.tasks.labelled import Labelled


class Tags(Labelled):
    """Sigmoid and binary cross-entropy."""

    best, hit = "map", "f1"
    kept = ("map", "frame_map", "macro_f1", "accuracy", "loss")
