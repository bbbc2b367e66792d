"""What of this program is seen in napari: the window of `correct`, the widget Segment, a reader and a writer of files.

The only package that imports napari, which is not installed with the others: `pip install 'sartorius[napari]'`.
"""
