"""`aimctl doctor`: checks the prerequisites of the control plane; each finding has its fix.

1. `snapshot` has the facts, `collect` reads them from cluster and bus. `checks`, `network` and
   `requirements` draw the conclusions and are pure. The command prints them.
2. What cannot be read is a finding of its own and hides no other. Every request has a timeout.
3. An error will not work. A warning cannot be decided from here, or names what does not exist yet
   and may never be needed.
"""
