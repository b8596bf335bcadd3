"""Any number of labels at once, also none: each label of a step has a posterior of its own, 0 to 1."""

from pipeline.tasks.labelled import Labelled, Tagged


class Tags(Labelled[Tagged]):
    """Sigmoid and binary cross-entropy."""

    kind = Tagged
    best, hit, kept = "map", "f1", ("map", "frame_map", "macro_f1", "accuracy", "loss")
