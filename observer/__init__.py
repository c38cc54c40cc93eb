"""Compares two versions' answers to the same requests: counts how often they differ beyond stable's own noise."""
