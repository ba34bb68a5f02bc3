from detectron2._missing import missing_names

__getattr__ = missing_names(__name__, "colormap develop serialize testing tracing video_visualizer")
