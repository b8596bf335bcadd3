"""Which Rivulet this is. The same number stands in `CITATION.cff`; `CHANGELOG.md` says what changed."""

VERSION = "0.9.0"
