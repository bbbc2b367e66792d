"""Time series and plates: counts and confluence by well and time."""
