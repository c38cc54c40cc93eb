"""Simulated releases: real judge, real decisions, random traffic and a clock that jumps. Pure, given a seed."""
