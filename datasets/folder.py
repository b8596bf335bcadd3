"""Recordings in a folder per class."""

import warnings

from datasets.class_folders import ClassFolders
from pipeline.media.formats import VIDEO
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Split


class Folder(ClassFolders):
    """Clips below ``root``; the label is the folder's name. Any audio format, rate and length."""

    def split(self, name: str, spec: InputSpec) -> Split:
        """As any corpus; with a warning if videos are only heard."""
        videos = sum(clip.path.suffix.lower() in VIDEO for clip in self.clips)
        if name == "train" and videos and not spec.picture:
            warnings.warn(
                f"{videos} of {len(self.clips)} files have names of videos, and this model hears them, but does not "
                "see them; to see: extractor=optical_flow encoder=image_recurrent augment=pictures",
                stacklevel=2,
            )
        return super().split(name, spec)
