"""The default addresses of the controller and its runbooks."""

CONTROLLER = "http://127.0.0.1:8090"


def runbooks_at(controller: str) -> str:
    """The page of runbooks that the controller serves; each alert's anchor is its name in lower case."""
    return f"{controller}/runbooks"


RUNBOOKS = runbooks_at(CONTROLLER)
