"""The LIVECell data set: its folder, its COCO files, its audit and datamodule."""
