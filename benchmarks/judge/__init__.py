"""Other tools' release rules beside ours, on the same simulated traffic."""
