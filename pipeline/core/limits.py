"""What one input may cost at most, whatever it claims: limits that files and cameras share."""

MAX_PIXELS = 7680 * 4320  # of one picture
