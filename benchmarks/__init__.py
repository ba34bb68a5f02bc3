"""Speed and memory of detectron2-lite against the plain way; `python -m benchmarks.run`."""
