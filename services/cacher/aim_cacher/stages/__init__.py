"""The stages that a cache goes through: eligibility, sizing, storage, download, settled.

Each module returns the plan of a cache that is in its stage; `aim_cacher.plan` decides which
stage that is.
"""
