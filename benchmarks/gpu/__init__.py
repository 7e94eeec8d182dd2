"""The single-GPU path, measured on a bare machine: `python -m benchmarks.gpu --out FILE`.

Each section is a file and a process of its own, which yields rows of results as it measures them.
"""
