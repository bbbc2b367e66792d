"""The dock of the window of `correct`: images, counts, types, and a button for each action with its key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QGridLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from sartorius.napari_plugin.actions import Action

_SIGNS = {"checked": "✓", "started": "●", "open": "  "}
_COLUMNS = 2
_LEGEND = (
    "<span style='color:#f23326'>■</span> low score <span style='color:#fad933'>■</span> "
    "<span style='color:#40d94d'>■</span> high &nbsp; <span style='color:#33bfff'>■</span> accepted &nbsp; □ chosen<br>"
    "Click a cell to choose it, again for the one below it; with Shift to choose several."
)


class CorrectionPanel(QWidget):
    """The widgets; none takes the focus, so that keys stay with the image.

    images: in the order of the queue. run: does an action. opened: is told of the image that is clicked. typed: is
    told of the type that is picked, by its index.
    """

    def __init__(
        self,
        images: Sequence[str],
        types: Sequence[str],
        actions: Sequence[Action],
        run: Callable[[Action], None],
        opened: Callable[[str], None],
        typed: Callable[[int], None],
    ) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        self.images = QListWidget()
        self._items = {image_id: QListWidgetItem(image_id) for image_id in images}
        for item in self._items.values():
            self.images.addItem(item)
        self._names = {id(item): image_id for image_id, item in self._items.items()}
        self.images.itemClicked.connect(lambda item: opened(self._names[id(item)]))
        self.progress, self.counts, self.message = QLabel(), QLabel(), QLabel()
        self.types = QComboBox()
        self.types.addItems([f"{k}  {name}" for k, name in enumerate(types, start=1)])
        self.types.activated.connect(typed)
        self.brush = QSpinBox()
        self.brush.setRange(1, 100)
        self.brush.setValue(3)
        self.brush.setPrefix("brush: ")
        self.brush.setSuffix(" px")
        legend = QLabel(_LEGEND)
        for label in (self.counts, self.message, legend):
            label.setWordWrap(True)
        self.buttons: dict[str, QPushButton] = {}
        buttons = self._buttons(actions, run)
        for widget in (self.progress, self.images, self.counts, self.types, self.brush, buttons, legend, self.message):
            layout.addWidget(widget)
        for widget in (self.images, self.types, self.brush, *self.buttons.values()):
            widget.setFocusPolicy(Qt.FocusPolicy.NoFocus)

    def _buttons(self, actions: Sequence[Action], run: Callable[[Action], None]) -> QWidget:
        buttons, grid = QWidget(), QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        buttons.setLayout(grid)
        for k, action in enumerate(actions):
            button = QPushButton(f"{action.title}  [{action.key}]")
            button.setToolTip(action.tip)
            button.setCheckable(action.draws)
            button.clicked.connect(lambda _=False, action=action: run(action))
            grid.addWidget(button, k // _COLUMNS, k % _COLUMNS)
            self.buttons[action.name] = button
        return buttons

    def show_images(self, status: Mapping[str, str], current: str | None, checked: int) -> None:
        """Show how far these images are, which one is open, and how many are checked."""
        for image_id, sign in status.items():
            self._items[image_id].setText(f"{_SIGNS[sign]} {image_id}")
        if current is not None:
            self.images.setCurrentItem(self._items[current])
        self.progress.setText(f"{checked} of {len(self._items)} images are checked")

    def show_tool(self, name: str | None) -> None:
        """Show which action the next stroke is for."""
        for key, button in self.buttons.items():
            if button.isCheckable():
                button.setChecked(key == name)

    def tell(self, text: str, bad: bool = False) -> None:
        """Show a sentence about the last action."""
        self.message.setStyleSheet("color: #ff8070" if bad else "")
        self.message.setText(text)
