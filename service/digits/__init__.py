"""The example model: handwritten digits. The only folder that a user replaces."""
