"""Find the engine on which a model is fastest without losing accuracy: `kanaria optimise`. No server imports it."""
