"""What surrounds the clips of a dataset in training: scenes of noise, and negatives."""

from collections.abc import Sequence
from pathlib import Path

from datasets.negatives import WithNegatives, share_out
from datasets.scenes import Scenes, SceneSettings
from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError
from pipeline.media.sample import Split
from pipeline.media.walk import list_files


class Surroundings:
    """The settings ``background``, ``scene``, ``negatives`` and ``negatives_label`` of a dataset, see ``Corpus``."""

    def __init__(
        self,
        labels: Sequence[str],
        background: str | None,
        scene: SceneSettings | None,
        negatives: str | list[str] | None,
        negatives_label: str | None,
    ) -> None:
        """``labels`` of the clips. ConfigError for settings that do not go together."""
        self.negatives = [] if negatives is None else list_files(negatives, "dataset.negatives")
        if negatives is not None and not self.negatives:
            raise ConfigError(f"dataset.negatives: no recordings in {negatives!r}; expected some without the classes")
        if self.negatives:
            background, scene = background or "background", scene or SceneSettings()
        if negatives_label not in (None, background, *labels):
            hint = nearest(str(negatives_label), list(labels))
            raise ConfigError(f"dataset.negatives_label: no clip is {negatives_label!r}{hint}")
        if scene and background is None:
            raise ConfigError("dataset.scene: needs dataset.background, the label of what is between the clips")
        self.background, self.scene, self.label = background, scene, negatives_label or background

    @property
    def settings(self) -> tuple[SceneSettings | None, list[Path], str | None]:
        """What scenes are drawn from."""
        return self.scene, self.negatives, self.label

    def surround(self, part: Split, name: str, labels: Sequence[str], rate: int, cache: Path | None) -> Split:
        """The split ``name``, train or val, with windows of negatives behind its own, if there are any, and in training
        in scenes.
        """
        if self.scene is None:
            return part
        background, label = (labels.index(str(one)) for one in (self.background, self.label))
        negatives = share_out(self.negatives, rate, cache) if self.negatives else {}
        if negatives:
            held_out = negatives["thresholds"]
            part = WithNegatives(part, negatives[name], held_out, label, self.scene.alone, background)
        return Scenes(part, self.scene, background, rate, negatives.get(name)) if name == "train" else part
