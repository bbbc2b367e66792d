"""The error of wrong input, which commands print in one line, without a traceback."""


class InputError(ValueError):
    """Wrong input from the person who runs a command.

    The message names the file, row or image, what was expected, what came, and what to do.
    """
