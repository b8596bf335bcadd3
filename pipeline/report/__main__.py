"""``python -m pipeline.report``: trainings side by side."""

import sys

from pipeline.report.comparison import main

sys.exit(main(sys.argv[1:]))
