"""The manifests of a model that Argo Rollouts or Flagger releases and the judge judges."""
