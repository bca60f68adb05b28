"""Generators of files that are kept in the repository, and checks of its text. They run from the
root of a checkout, as `python -m tools.NAME`; `make generate` and `make verify` run all of them.
"""
