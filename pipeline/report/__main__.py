"""``python -m pipeline.report``: trainings side by side, or what a database of events holds."""

import sys

from pipeline.report.comparison import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
