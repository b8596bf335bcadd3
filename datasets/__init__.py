"""Where training data come from: one file per kind or corpus, the common part in `clips`."""
