"""The one user of the stack's Prometheus and Alertmanager."""

USER = "kanaria"
