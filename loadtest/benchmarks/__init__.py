"""The service beside other ways to serve the same model. `kanaria bench service` runs it."""
