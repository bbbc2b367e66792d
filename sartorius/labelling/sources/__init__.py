"""Labels of other programs, matched with their images and written as a folder in the competition's layout."""
