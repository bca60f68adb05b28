"""The shell around a pure core: every service is `fold` and `plan`, and this library runs them."""
