"""Limits of one input that files and cameras share."""

MAX_PIXELS = 7680 * 4320  # of one picture
