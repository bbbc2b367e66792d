"""The one error that means "the input is wrong": verbs print it without a traceback and stop."""


class InputError(ValueError):
    """Bad input from the person who runs a command.

    The message names the file, row or image, what was expected, what came, and what to do.
    """
