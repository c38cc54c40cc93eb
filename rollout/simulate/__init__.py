"""Simulates releases: real judge and decisions, random traffic, a clock that jumps. Runs repeat for the same seed."""
