"""Manifests for a model that Argo Rollouts or Flagger releases as far as the judge allows."""
