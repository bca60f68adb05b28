"""`aimlab`: the laptop cluster's own commands."""
