"""Benchmarks of jinv beside its peers; `python -m benchmarks list` names them.

This file imports nothing: a worker process may run in a peer's environment, without jinv.
"""
