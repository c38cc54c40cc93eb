"""`kanaria optimise`: finds the engine on which a model is fastest without losing accuracy. No server imports it."""
