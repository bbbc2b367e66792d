"""The version of this program, which files for others name."""

VERSION = "0.1.0"
