"""Drift: whether traffic still looks like the data that a model was tested on, and a canary's like stable's."""
