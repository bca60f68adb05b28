"""Real faults on the laptop cluster, what a person is told of each, and how it heals."""
