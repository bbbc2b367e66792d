"""The actions of the window of `correct`: what the buttons say, and the keys."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Action:
    """One action. name: of the method of the window.  draws: waits for a stroke of the mouse."""

    name: str
    title: str
    key: str
    tip: str
    draws: bool = False


ACTIONS = (
    Action("accept", "Accept", "A", "The chosen cells are right"),
    Action("accept_all", "Accept all", "Shift-A", "All cells are right"),
    Action("delete", "Delete", "D", "Remove the chosen cells"),
    Action("merge", "Merge", "M", "Join the chosen cells into one"),
    Action("split", "Split", "S", "Part the chosen cell at its waist"),
    Action("cut", "Cut", "L", "Draw a line across a cell, which parts it", draws=True),
    Action("redraw", "Redraw", "R", "Draw around the chosen cell anew", draws=True),
    Action("new", "New cell", "N", "Draw around a cell that is missing", draws=True),
    Action("paint", "Paint", "P", "Paint pixels to the chosen cell, or a new one", draws=True),
    Action("erase", "Erase", "E", "Erase pixels of the chosen cell", draws=True),
    Action("mark", "Mark part", "B", "Draw the rectangle you check; outside only accepted cells teach", draws=True),
    Action("unmark", "Whole image", "Shift-B", "Check all of the image"),
    Action("next_type", "Next type", "T", "Give the chosen cells the next type; 1 to 9 give one of the list"),
    Action("undo", "Undo", "U", "Take the last edit back"),
    Action("redo", "Redo", "Shift-U", "Make the last edit again that was taken back"),
    Action("save", "Save, next", "W", "Write the labels, mark the image as checked and open the next one"),
    Action("save_accepted", "Save accepted", "Shift-W", "The same with the accepted cells alone; others teach nothing"),
    Action("next_image", "Next", "F", "Open the next image; edits stay in a draft"),
    Action("fill", "Fill", "V", "Show cells as outlines, or filled"),
    Action("hide", "Hide", "H", "Hide the cells, or show them"),
    Action("colours", "Colours", "C", "Colour cells by their score, or by their type"),
)
