"""Pieces of programs that are killed; they need `os` and `signal`, and `n`."""

# A file that is about to get its name is written but not there yet: the worst moment.
BEFORE_THE_NAME = """
count, rename = 0, os.replace
def dying(*paths):
    global count
    count += 1
    if count == {n}:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(*paths)
os.replace = dying
"""
