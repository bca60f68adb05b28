"""Where all randomness of the runs comes from: one seed."""

import random


def chance(seed: float) -> random.Random:
    return random.Random(seed)  # noqa: S311 (to be had again, not to be secret)


def branch(rng: random.Random) -> random.Random:
    """Another source that follows from this one, for something that draws at moments of its own."""
    return chance(rng.random())
