"""Where the controller and its pages are, unless somebody says otherwise."""

CONTROLLER = "http://127.0.0.1:8090"


def runbooks_at(controller: str) -> str:
    """The page of runbooks, which the controller serves; each alert's anchor is its name in small letters."""
    return f"{controller}/runbooks"


RUNBOOKS = runbooks_at(CONTROLLER)
