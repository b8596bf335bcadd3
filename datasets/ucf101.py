"""UCF101 (Soomro et al. 2012): 13,320 videos of 101 actions, with the three official folds."""

import re
from pathlib import Path

from datasets.clips import Clip, named_group, required
from datasets.folded_videos import FoldedVideos

GROUP = re.compile(r"(.*_g\d+)_c\d+")  # v_Archery_g08_c01: the first cut of the eighth recording


class UCF101(FoldedVideos):
    """``root/UCF-101/<class>/v_*.avi`` as ``trainlist0N.txt`` and ``testlist0N.txt`` divide them.

    Cuts of one recording are one group.
    """

    # torchvision.datasets.UCF101 opens every video with TorchCodec before it reads a list, and leaves out what is
    # listed and missing without a word; so the lists are read here.

    what = (
        "a folder with UCF-101/ and ucfTrainTestlist/ in it; fetch UCF101.rar and "
        "UCF101TrainTestSplits-RecognitionTask.zip, unpack both there, and point to it"
    )

    def list_clips(self, folder: Path, fold: int) -> list[Clip]:
        """The clips of two lists: a path on each line, in train with the class's number behind it."""
        clips, videos = [], required(folder / "UCF-101", self.what)
        for split in ("train", "test"):
            table = required(folder / "ucfTrainTestlist" / f"{split}list{fold:02}.txt", self.what)
            for line in filter(str.strip, table.read_text(encoding="utf-8").splitlines()):
                path = Path(line.split()[0])
                clips.append(Clip(videos / path, path.parent.name, split, group=named_group(GROUP, path)))
        return clips
