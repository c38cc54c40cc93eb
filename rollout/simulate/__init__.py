"""Simulated releases: real judge, real decisions, random traffic and a clock that jumps; the same for the same seed."""
