"""Sees what two versions answered to the same requests, and counts how often they differ beyond stable's own noise."""
