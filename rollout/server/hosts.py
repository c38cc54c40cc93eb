"""The hosts by which people reach the judge's pages."""

from urllib.parse import urlsplit


def hosts_of(url: str) -> frozenset[str]:
    """That of a URL; of a Service in a cluster also the other names that the cluster's DNS has for it."""
    host = urlsplit(url).hostname or ""
    match host.split("."):
        case [name, namespace, "svc", *domain]:
            whole = f"{name}.{namespace}.svc"
            full = ".".join([whole, *(domain or ("cluster", "local"))])
            return frozenset({name, f"{name}.{namespace}", whole, full})
    return frozenset({host} if host else ())


def namespace_of(url: str) -> str | None:
    """The namespace of the Service at a URL; None: it is no Service's."""
    match (urlsplit(url).hostname or "").split("."):
        case [_, namespace, "svc", *_]:
            return namespace
    return None
