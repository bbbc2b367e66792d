"""Ids that would write outside a folder, hide a file or name none."""

BAD_IDS = [
    "", ".", "..", "../../x", "/abs/x", "a/b", "a\\b", "..\\x", ".hidden", "a\0b", "a\n", "a\tb", "a\x7f",
    "x" * 201, "\u00e9" * 101,
]  # fmt: skip
GOOD_IDS = [
    "a",
    "0030fd0e6378",
    "a.b",
    "a..b",
    "-",
    "\u7d30\u80de 1",
    "x" * 200,
    "cort[density]_C6-1_2020-11-03_13h30m00s_Ph_4",
    "A=1,{b}'#",
]
