"""Decide and shift traffic between a stable and a canary version."""
