"""Drift: does traffic still look like the data that a model was tested on, and a canary's traffic like stable's?"""
