"""HMDB51 (Kuehne et al. 2011): 6,766 videos of 51 actions from films and the web, with the three official folds."""

from pathlib import Path

from datasets.clips import Clip, required
from datasets.folded_videos import FoldedVideos

MARKS = {"1": "train", "2": "test"}  # 0: not in this fold


class HMDB51(FoldedVideos):
    """``root/<class>/*.avi`` as the marks of ``<class>_test_split<N>.txt`` divide them.

    Cuts of one film within a class stay together.
    """

    # torchvision.datasets.HMDB51 opens every video with TorchCodec first, and looks marks up by file name whatever the
    # class, though classes share names; so the tables are read here.

    what = (
        "a folder with one sub-folder of videos per class and testTrainMulti_7030_splits/; fetch hmdb51_org.rar and "
        "test_train_splits.rar, unpack both there (and the archive of each class), and point to it"
    )

    def list_clips(self, folder: Path, fold: int) -> list[Clip]:
        """The clips of each class's table: on each line a file's name and its mark."""
        lists, ending = folder / "testTrainMulti_7030_splits", f"_test_split{fold}.txt"
        tables = sorted(lists.glob(f"*{ending}")) or [required(lists / f"<class>{ending}", self.what)]
        classes = {table.name.removesuffix(ending): table for table in tables}
        if not any((folder / label).is_dir() for label in classes):
            required(folder / next(iter(classes)), self.what)
        clips = []
        for label, table in classes.items():
            for line in filter(str.strip, table.read_text(encoding="utf-8").splitlines()):
                name, _, mark = " ".join(line.split()).rpartition(" ")
                if name and mark in MARKS:  # April_09_brush_hair_u_nm_np1_ba_goo_0.avi is a cut of April_09
                    film = f"{label}/{name.rpartition(f'_{label}_')[0] or name}"
                    clips.append(Clip(folder / label / name, label, MARKS[mark], group=film))
        return clips
