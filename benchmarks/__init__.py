"""Measurements beside other libraries, both sides in the same run: `python -m benchmarks`.

Each module measures one thing and holds `rows()`, which first checks that both sides agree on the result (a side that
is wrong cannot win) and raises `Disagreement` if they do not. The inputs are real images of the competition where a
copy is at hand (`images.py`), otherwise generated ones with as many cells.
"""
