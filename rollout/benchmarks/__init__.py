"""Other people's release rules beside ours, on the same simulated traffic. `kanaria bench` runs it."""
