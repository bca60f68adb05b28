"""Where all randomness of the runs comes from: one seed."""

import random


def chance(seed: float) -> random.Random:
    return random.Random(seed)  # noqa: S311 (to be had again, not to be secret)


def branch(rng: random.Random) -> random.Random:
    """Another source derived from this one, for a task that draws at independent times."""
    return chance(rng.random())
