"""Real faults on the laptop cluster, the condition that reports each, and the recovery."""
