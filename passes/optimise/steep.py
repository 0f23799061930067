"""The slope at which a line is a step."""

STEEPEST = 2.0**127
"""The largest power of two in float32. Times the smallest normal number it is 2, so that a line of this slope, held
between bounds that are at most 2 apart, has left them at every normal number; and as a power of two it rounds nothing.
"""
