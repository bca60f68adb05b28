"""`aimctl doctor`: what a cluster has and lacks for the control plane, each finding with its fix.

1. `facts` says what was looked at, `gather` looks, `findings` and `fit` say what follows (pure),
   `show` prints it.
2. What cannot be looked at is a finding of its own and hides nothing else; every look has a
   time-out.
3. An error is what will not work, a warning what cannot be known from here, or what is not there
   yet and may never be needed.
"""
