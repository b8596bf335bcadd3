"""The kinds of recordings that are read, and the endings by which folders are searched for them.

What a file is, its bytes say; an ending only tells that a file of a folder is meant to be a recording. FFmpeg knows the
endings of its own formats; the few that it does not know stand beside them.
"""

import re

from av.format import ContainerFormat

# How recordings begin that have a header, which no samples begin like.
HEADED = re.compile(
    rb"RIFF|RIFX|RF64|BW64|FORM|caff\0|riff\x2e\x91|\.snd|NIST_1A|Creative Voice File|fLaC|OggS|ID3[\2-\4]|#!AMR"
    rb"|MAC |MP\+|MPCK|wvpk|TTA[12]|tBaK|DSD |\x1a\x45\xdf\xa3|.{4}(?:ftyp|moov|mdat|wide|free|skip)|\x30\x26\xb2\x75"
    rb"|FLV\x01|GIF8|\x89PNG|\xff\xd8\xff[\xe0-\xef]|DKIF",
    re.DOTALL,
)

# Demuxers of FFmpeg, each of which tells its format by the bytes, and opens no other file.
SOUND_DEMUXERS = "wav,w64,flac,aiff,caf,amr,au,voc,nistsphere,mp3,aac,loas,ac3,eac3,dts,ape,wv,mpc,mpc8,tta,tak,dsf"
VIDEO_DEMUXERS = "matroska,webm,mov,mp4,avi,asf,flv,gif,apng,mjpeg,mpeg,mpegvideo,mpegts,m4v,h264,hevc,vvc,av1,obu,ivf"
DEMUXERS = f"{SOUND_DEMUXERS},ogg,{VIDEO_DEMUXERS}"
# Durations that FFmpeg works out from the bit rate or the last time stamp, as there is no header that claims one.
GUESSING = {"mp3", "aac", "loas", "ac3", "eac3", "dts", "amr", "voc", "asf", "avi", "flv", "wav"}
GUESSING |= {"matroska,webm", "mpeg", "mpegvideo", "mpegts", "m4v", "h264", "hevc", "vvc", "av1", "obu", "ivf", "mjpeg"}


def endings(*formats: str) -> set[str]:
    """The endings that FFmpeg reads or writes as these formats, in lower case."""
    found = set[str]()
    for name in formats:
        for mode in ("r", "w"):
            try:
                found |= {f".{ending}" for ending in ContainerFormat(name, mode).extensions}
            except ValueError:  # it only reads, or only writes it, or was built without
                continue
    return found


AUDIO = endings(*SOUND_DEMUXERS.split(","), "ogg", "oga", "opus", "spx", "adts", "latm", "mp2")
AUDIO |= {".wave", ".bwf", ".rf64", ".aif", ".aiff", ".aifc", ".snd", ".sph", ".nist", ".m4a", ".m4b", ".m4r", ".isma"}
AUDIO |= {".3ga", ".mka", ".weba", ".wma", ".dsf", ".awb", ".ec3", ".mp1", ".mp4a", ".f4a", ".f4b"}
OTHERS = {".avif", ".heic", ".heif", ".mks", ".mpo", ".mac", ".avc", ".apl"}  # pictures, texts and lists
VIDEO = endings(*VIDEO_DEMUXERS.split(","), "ogv", "3gp", "3g2", "vob", "mpeg1video", "mpeg2video", "ismv", "ipod")
VIDEO |= {".divx", ".xvid", ".qt", ".tod", ".mpv", ".m4v", ".mpe", ".ogm", ".ogx"}
VIDEO -= AUDIO | OTHERS
AUDIO -= OTHERS
