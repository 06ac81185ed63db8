"""Arrays in, Axes out."""
