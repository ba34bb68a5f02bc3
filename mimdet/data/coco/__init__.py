"""Own datasets in COCO format: one reader decides what a file may contain.

The loader trains on its records, the evaluator scores against the truth it writes, the checker
prints its problems: no file can pass one and break another.
"""
