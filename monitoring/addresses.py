"""The default addresses of the controller, the judge of deploy/kubernetes, and their runbooks."""

CONTROLLER = "http://127.0.0.1:8090"
JUDGE = "http://kanaria-judge.kanaria.svc:8091"


def runbooks_at(controller: str) -> str:
    """The page of runbooks that the controller serves, and the judge; each alert's anchor is its name in lower case."""
    return f"{controller}/runbooks"


RUNBOOKS = runbooks_at(CONTROLLER)
