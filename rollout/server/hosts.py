"""The host names by which people reach the judge's pages."""

from urllib.parse import urlsplit


def hosts_of(url: str) -> frozenset[str]:
    """The host of a URL; for a Service in a cluster, also its other names in the cluster's DNS."""
    host = urlsplit(url).hostname or ""
    match host.split("."):
        case [name, namespace, "svc", *domain]:
            whole = f"{name}.{namespace}.svc"
            full = ".".join([whole, *(domain or ("cluster", "local"))])
            return frozenset({name, f"{name}.{namespace}", whole, full})
    return frozenset({host} if host else ())


def namespace_of(url: str) -> str | None:
    """The namespace of the Service at a URL; None: the URL is not a Service's."""
    match (urlsplit(url).hostname or "").split("."):
        case [_, namespace, "svc", *_]:
            return namespace
    return None
