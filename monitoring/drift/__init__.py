"""Drift: does traffic still look like the data on which a model was tested, and a canary's traffic like stable's?"""
